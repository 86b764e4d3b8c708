/// The schema's versions, in order: number n brings a file from user_version n - 1 to n. Never edited
/// after a release.
package enum Migrations {
  /// SQL text of each version, the first being version 1.
  package static let all: [String] = [
    text(PackageResources.m0001_create_items_sql), text(PackageResources.m0002_create_views_sql),
    text(PackageResources.m0003_create_recently_used_sql), text(PackageResources.m0004_pack_rows_sql),
  ]

  private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
}
