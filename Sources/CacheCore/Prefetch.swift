import CSystem

/// Asks the processor to bring the cache line of `address` near. Never faults, whatever the address.
@inlinable @inline(__always)
package func prefetch(_ address: UnsafeRawPointer) { cache_prefetch(address) }
