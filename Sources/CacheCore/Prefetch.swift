import CSystem

/// Asks the processor to bring the cache line of `address` near. Never faults, whatever the address.
@inlinable @inline(__always)
public func prefetch(_ address: UnsafeRawPointer) { cache_prefetch(address) }
