import Foundation
import LoadGenerator

/// Stores far more than RAM holds, as fast as the servers take it, and then reads all of it back.
struct Pressure {
  let arena: Arena
  let items: Int
  let rounds: Int
  let seed: UInt64

  private static let memory = 64
  private static let length = 1024

  func measure() throws -> Comparison {
    var rounds: [[Round]] = [[], []]
    var lost = [0, 0]
    for _ in 0..<self.rounds {
      for side in 0..<2 {
        let peer =
          side == 0
          ? try arena.ours(Self.memory) : try arena.rival(Self.memory, ["-o", "ext_item_age=2"], extstore: true)
        defer { peer.stop() }
        let contents = LoadItems(lengths: Self.length...Self.length)
        var load = Load(operation: .set, order: .sequential, count: items, inFlight: 20, seed: seed)
        load.threads = arena.clientThreads
        let round = try arena.round(peer, load, contents)
        rounds[side].append(round)
        let reading = Load(operation: .multiget(50), order: .sequential, count: items)
        let back = try LoadClients(of: peer.address, load: reading, items: contents).run()
        lost[side] += Int(back.misses) + Int(back.failed) + Int(back.wrong)
        rounds[side][rounds[side].count - 1].wrong += back.wrong
      }
    }
    return Comparison(
      name: "pressure", title: "set, 1 KiB, \(items) into \(Self.memory) MiB", ours: rounds[0], peer: rounds[1],
      mostProcessor: nil, leastRate: 1.0, lost: lost)
  }
}
