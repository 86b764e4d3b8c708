import CSystem

/// Moves resident pages of private anonymous memory to addresses where other such memory is mapped, whose pages go.
/// Where they were nothing is resident any more. False: the system does not do that, and nothing has changed.
public func moveResidentPages(
  _ from: UnsafeMutableRawPointer, _ byteCount: Int, to target: UnsafeMutableRawPointer
) -> Bool { move_resident_pages(from, byteCount, target) == 0 }
