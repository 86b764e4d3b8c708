/// The schema's versions, in order: number n brings a file from user_version n - 1 to n. Never edited
/// after a release.
package enum Migrations {
  /// SQL text of each version, the first being version 1.
  package static let all: [String] = [
    text(PackageResources.m0001_create_items_sql), text(PackageResources.m0002_create_views_sql),
    text(PackageResources.m0003_create_recently_used_sql),
  ]

  /// A file of this version or a later one has all that a server needs; it is served as it is when the disk is too full
  /// to bring it up.
  package static let oldestServable = 1

  /// The version from which on a file notes the order in which items were used.
  package static let firstWithRecent = 3

  private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
}
