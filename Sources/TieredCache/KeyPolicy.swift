import CacheCore
import HotTier

/// In which tiers the items of a key may be.
package enum Placement: UInt8, Sendable {
  /// In RAM and in the file.
  case both
  /// In RAM while it serves; the file gets them at a clean stop.
  case hot
  /// In the file; RAM has them until they are written, and while a command changes them.
  case cold
  /// In RAM, and never in the file.
  case neverPersisted
}

/// What is done with the items of a key where that is a matter of choice. Settings and rules by prefix are made into
/// these (`PolicyTable`).
package struct KeyPolicy: Sendable, Equatable {
  package var placement = Placement.both
  package var durability = Durability.interval
  /// Seconds from when an item is stored or touched to its expiry, at most; 0: as the client says.
  package var maximumTTL: UInt32 = 0
  package var admission = KeyAdmission()
  package var promotion = KeyPromotion()

  package init() {}

  /// When the file is to have a new version.
  enum Writing { case soon, late, never }
  @inline(__always)
  var writing: Writing {
    switch placement {
    case .hot, .neverPersisted: .never
    case .both, .cold: durability == .shutdown ? .late : .soon
    }
  }

  /// Whether a reply says that the file has it.
  @inline(__always)
  var repliesAfterCommit: Bool { durability == .always && (placement == .both || placement == .cold) }

  /// The expiry that an item gets which a client wants to expire at `moment` (0 = never).
  @inline(__always)
  func expiry(_ moment: UnixSeconds, now: UnixSeconds) -> UnixSeconds {
    if maximumTTL == 0 { return moment }
    let latest = now.addingReportingOverflow(maximumTTL)
    if latest.overflow { return moment }
    return moment == 0 ? latest.partialValue : min(moment, latest.partialValue)
  }
}

/// Which items become rows of the file. What is refused lives in RAM alone, as `AdmissionLimits` says.
package struct KeyAdmission: Sendable, Equatable {
  /// Seconds that an item must have left when its turn to be written comes; 0: it need not. A clean stop does not ask.
  package var minimumTTL: UInt32 = 0
  /// Bytes of key and value; 0: what the file takes.
  package var maximumBytes = 0
  /// A key has to be seen twice: read since it was stored, or stored again while the first time is remembered. A clean
  /// stop does not ask.
  package var seenBefore = false

  package init() {}
}

/// When an item that is read from the file goes back to RAM.
package struct KeyPromotion: Sendable, Equatable {
  /// Reads from the file; 0: never. Without a window at most 3 are counted.
  package var reads: UInt8 = 1
  /// Seconds within which they have to come; 0: since the row was written.
  package var window: UInt32 = 0

  package init() {}
}

/// A policy for the keys that begin with these bytes.
package struct PrefixRule: Sendable, Equatable {
  package var prefix: [UInt8]
  package var policy: KeyPolicy

  package init(prefix: [UInt8], policy: KeyPolicy) {
    self.prefix = prefix
    self.policy = policy
  }
}

/// Policies by prefix, the first rule that fits counts, in raw memory that never changes: a trie over the prefixes.
///
///     node:  the first rule whose prefix ends here (0 = none, else its number from 1)
///            the first rule of its whole subtree, so that a search ends where nothing better can come
///            edges: bytes in rising order, and the nodes that they lead to
///
/// A look-up costs a step for each byte of the key that a prefix has too. Copies share the memory; the cache frees it
/// when no shard has the table any more.
package struct PolicyTable: @unchecked Sendable {
  struct Node {
    var rule: UInt32
    var least: UInt32
    var firstEdge: UInt32
    var edgeCount: UInt32
  }
  struct Edge {
    var byte: UInt8
    var node: UInt32
  }

  /// The standard one, then those of the rules in their order.
  private let policies: UnsafeMutablePointer<KeyPolicy>
  private let nodes: UnsafeMutablePointer<Node>?
  private let edges: UnsafeMutablePointer<Edge>?
  package let ruleCount: Int
  /// Whether any policy has it, so that those who would only find out that none has need not look.
  let capsTTL: Bool
  let wantsSeenBefore: Bool
  let countsWithinWindow: Bool
  let hasPlacements: Bool

  /// Whether a reply waits for the commit of its command: of none, of all, or as the key's policy says.
  enum Committing: UInt8 { case none, all, byKey }
  let committing: Committing

  package static let maximumRules = 10_000

  package init(standard: KeyPolicy, rules: [PrefixRule]) {
    let all = [standard] + rules.map(\.policy)
    policies = .allocate(capacity: all.count)
    policies.initialize(from: all, count: all.count)
    ruleCount = rules.count
    capsTTL = all.contains { $0.maximumTTL > 0 }
    wantsSeenBefore = all.contains(where: \.admission.seenBefore)
    countsWithinWindow = all.contains { $0.promotion.window > 0 && $0.promotion.reads > 1 }
    hasPlacements = all.contains { $0.placement != .both }
    committing =
      all.allSatisfy(\.repliesAfterCommit) ? .all : all.contains(where: \.repliesAfterCommit) ? .byKey : .none
    if rules.isEmpty {
      nodes = nil
      edges = nil
      return
    }
    let trie = Trie(rules.map(\.prefix))
    nodes = .allocate(capacity: trie.nodes.count)
    nodes!.initialize(from: trie.nodes, count: trie.nodes.count)
    edges = .allocate(capacity: max(trie.edges.count, 1))
    edges!.initialize(from: trie.edges, count: trie.edges.count)
  }

  func deallocate() {
    policies.deallocate()
    nodes?.deallocate()
    edges?.deallocate()
  }

  /// For keys that no rule fits, and for what concerns no key.
  var standard: KeyPolicy { policies.pointee }

  @inline(__always)
  func policy(of key: UnsafeRawPointer, _ count: Int) -> UnsafePointer<KeyPolicy> {
    guard let nodes else { return UnsafePointer(policies) }
    return UnsafePointer(policies + match(nodes, key, count))
  }

  @inline(__always)
  func policy(of item: Item) -> UnsafePointer<KeyPolicy> { policy(of: item.key, item.keyLength) }

  /// The number of the first rule that fits, 0 if none does.
  private func match(_ nodes: UnsafeMutablePointer<Node>, _ key: UnsafeRawPointer, _ count: Int) -> Int {
    var best = UInt32.max
    var node = nodes
    var i = 0
    while true {
      if node.pointee.rule != 0 { best = min(best, node.pointee.rule) }
      if i == count || node.pointee.edgeCount == 0 { break }
      guard let next = child(of: node, key.load(fromByteOffset: i, as: UInt8.self)) else { break }
      node = nodes + Int(next)
      if node.pointee.least >= best { break }
      i += 1
    }
    return best == .max ? 0 : Int(best)
  }

  private func child(of node: UnsafeMutablePointer<Node>, _ byte: UInt8) -> UInt32? {
    var edge = edges! + Int(node.pointee.firstEdge)
    var left = Int(node.pointee.edgeCount)
    while left > 8 {
      let half = left / 2
      if edge[half].byte <= byte {
        edge += half
        left -= half
      } else {
        left = half
      }
    }
    for i in 0..<left where edge[i].byte == byte { return edge[i].node }
    return nil
  }

  /// While it is put together; not on the path of a request.
  private struct Trie {
    private final class Branch {
      var rule: UInt32 = 0
      var children: [UInt8: Branch] = [:]
    }
    private(set) var nodes: [Node] = []
    private(set) var edges: [Edge] = []

    init(_ prefixes: [[UInt8]]) {
      let root = Branch()
      for (i, prefix) in prefixes.enumerated() {
        var branch = root
        for byte in prefix {
          let next = branch.children[byte] ?? Branch()
          branch.children[byte] = next
          branch = next
        }
        // Of two rules with one prefix the first counts.
        if branch.rule == 0 { branch.rule = UInt32(i + 1) }
      }
      _ = add(root)
    }

    /// Returns its number.
    private mutating func add(_ branch: Branch) -> UInt32 {
      let number = nodes.count
      let sorted = branch.children.sorted { $0.key < $1.key }
      nodes.append(
        Node(
          rule: branch.rule, least: branch.rule == 0 ? .max : branch.rule, firstEdge: UInt32(edges.count),
          edgeCount: UInt32(sorted.count)))
      let firstEdge = edges.count
      for (byte, _) in sorted { edges.append(Edge(byte: byte, node: 0)) }
      for (i, (_, child)) in sorted.enumerated() {
        let node = add(child)
        edges[firstEdge + i].node = node
        nodes[number].least = min(nodes[number].least, nodes[Int(node)].least)
      }
      return UInt32(number)
    }
  }
}
