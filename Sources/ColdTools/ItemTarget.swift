import CacheCore

/// Takes items that are moved, in the order in which they are given; a later one of the same key wins.
package protocol ItemTarget: AnyObject {
  /// Servers of the source have given out CAS values up to `casReserved` (0: not known); it has about so many items.
  func begin(casReserved: UInt64, items: Int) throws
  /// An item that is not expired. Does not wait for anything: a transaction may be open. A CAS of 0 has to be replaced by
  /// a new one.
  func take(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer, attributes: ItemAttributes)
  /// What was said of this key before does not count any more.
  func delete(key: UnsafeRawBufferPointer)
  /// Passes on what has gathered, if that is worth it.
  func drain() throws
  /// Passes on all that has gathered: something went wrong, and no more will come.
  func keep() throws
  /// Returns when all of it is where it shall be.
  func end(items: Int, deletions: Int) throws
  /// Bytes that were passed on.
  var bytesMoved: Int { get }
}

/// The stream of meta commands that import and any memcached read.
package final class StreamTarget: ItemTarget {
  private let sink: ByteSink

  package init(_ sink: ByteSink) { self.sink = sink }

  package func begin(casReserved: UInt64, items: Int) {
    StreamFormat.writeHeader(casReserved: casReserved, items: items, to: sink)
  }
  package func take(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer, attributes: ItemAttributes) {
    StreamFormat.writeItem(key: key, value: value, attributes: attributes, to: sink)
  }
  package func delete(key: UnsafeRawBufferPointer) { StreamFormat.writeDeletion(key: key, to: sink) }
  package func drain() throws { try sink.drain() }
  package func keep() throws { try sink.flush() }
  package func end(items: Int, deletions: Int) throws {
    StreamFormat.writeEnd(items: items, deletions: deletions, to: sink)
    try sink.flush()
  }
  package var bytesMoved: Int { sink.bytesWritten }
}
