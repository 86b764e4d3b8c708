import CacheCore

/// Seconds up to which an exptime counts from now; above, it is Unix time.
private let longestRelativeExptime: Int64 = 60 * 60 * 24 * 30

/// The moment from which an item stored `now` with this exptime is no longer served. 0: never (0).
/// Negative: already expired (1, one second after 1970). 1...2,592,000: that many seconds from now.
/// More: Unix time, which may be past. Source: memcached doc/protocol.txt, Expiration times.
public func expiryMoment(_ exptime: Int64, now: UnixSeconds) -> UnixSeconds {
  if exptime == 0 { return 0 }
  if exptime < 0 { return 1 }
  if exptime > longestRelativeExptime { return UnixSeconds(clamping: exptime) }
  return UnixSeconds(clamping: Int64(now) + exptime)
}
