import CacheCore
import Glibc
import Synchronization

/// Makes the memory of large blocks resident before their values come, on a thread that is nobody's worker: a fresh page
/// costs many times what the copy into it costs. Pages of free blocks and free segments are moved there, which costs
/// a fiftieth of a fresh page and gives none back to the system; fresh ones are taken where there are no such.
extension SegmentPool {
  /// Blocks below that are their worker's matter: to hand them over would cost more than their pages.
  package static let leastPopulated = 256 << 10
  /// Bytes of fresh pages in a step. (17 microseconds a page where the system under this one has to find it first.)
  private static let freshStep = 64 << 10
  /// Bytes moved in a step: while they are, no other memory of the process is mapped.
  private static let mostMoved = 2 << 20
  private static let leastMoved = 64 << 10
  /// Each piece that was moved is a mapping of its own as long as it is resident, and the system allows 65,530 of them.
  private static let mostMappings = 8192

  /// Makes more of a block resident in one short step: up to `target` bytes from its beginning, a step or less further than
  /// it is. Only for a block that was allocated with a part of its value, by one thread. Not under a lock.
  package func populate(_ block: LargeBlock, upTo target: Int) {
    let resident = block.residentBytes
    let wanted = min(LargeBlock.footprint(target), block.byteCount) - resident
    if wanted <= 0 { return }
    let start = block.address + resident
    var done = movePages(to: start, atMost: wanted)
    if done == 0 {
      done = min(wanted, Self.freshStep)
      trim(atMost: max(done, Self.trimStep), beside: done)
      for offset in stride(from: 0, to: done, by: BlockSpace.page) {
        (start + offset).storeBytes(of: 0, as: UInt8.self)
      }
    }
    block.residentBytes = resident + done
    idle.countPending(-done)
  }

  /// Whether the system does that, as far as is known.
  var canMovePages: Bool { movesPages.load(ordering: .relaxed) }

  /// Moves pages that nobody uses to `target`. Returns how many bytes; 0 if there are none, or too few in one piece.
  private func movePages(to target: UnsafeMutableRawPointer, atMost wanted: Int) -> Int {
    let least = max(Self.leastMoved, LargeBlock.footprint(limitBytes / Self.mostMappings))
    if wanted < least || !canMovePages { return 0 }
    if let (spare, size) = idle.takeLargestSpare(atLeast: least) {
      return move(spare, size, least, to: target, atMost: wanted)
    }
    // Segments are no smaller than that, as long as the limit is the one that they were made for.
    if segmentBytes < least || segmentBytes > wanted { return 0 }
    guard let number = takeFreeSegment() else { return 0 }
    let start = UnsafeMutableRawPointer(head(number))
    let isMoved = move(start, segmentBytes, to: target)
    if isMoved {
      BlockSpace.renew(start, segmentBytes)
      idle.count(-segmentBytes)
    }
    keepFreeSegment(number, isEmpty: isMoved)
    return isMoved ? segmentBytes : 0
  }

  /// From the end of a free block, which becomes the shorter.
  private func move(
    _ spare: BlockSpace.Spare, _ size: Int, _ least: Int, to target: UnsafeMutableRawPointer, atMost wanted: Int
  ) -> Int {
    var spare = spare
    let bytes = min(wanted, spare.residentBytes, Self.mostMoved)
    let rest = spare.residentBytes - bytes
    guard move(spare.address + rest, bytes, to: target) else {
      idle.keep(spare, size: size)
      return 0
    }
    // A rest that is too short to be moved would only be in the way.
    let kept = rest < least ? 0 : rest
    BlockSpace.renewForBlocks(spare.address + kept, spare.residentBytes - kept)
    idle.count(kept - spare.residentBytes)
    spare.residentBytes = kept
    idle.keep(spare, size: size)
    return bytes
  }

  private func move(_ start: UnsafeMutableRawPointer, _ bytes: Int, to target: UnsafeMutableRawPointer) -> Bool {
    if moveResidentPages(start, bytes, to: target) {
      madvise(target, bytes, MADV_NOHUGEPAGE)
      return true
    }
    // Not a second time. Had the system made way already, nothing would be mapped there.
    movesPages.store(false, ordering: .relaxed)
    BlockSpace.mapIfNothingIs(target, bytes)
    return false
  }
}
