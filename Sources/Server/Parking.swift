import CacheCore
import Glibc
import TieredCache

/// What connections wait for besides their sockets, and how they go on.
extension WorkerState {
  mutating func park(_ connection: UnsafeMutablePointer<Connection>, _ why: Parking) {
    connection.pointee.parking = why
    switch why {
    case .coldRead, .scan, .room, .detached: noteWait(connection)
    case .commit, .output, .stream, .watch, .buffers, .memory, .none: break
    }
    switch why {
    case .scan:
      connection.pointee.parkedUntil = Self.monotonicMilliseconds() + limits.startWaitMilliseconds
      waitingForScan.append(connection)
      updateWants()
    case .room:
      waitingForCycle.append(connection)
      updateWants()
      counters.waitsForRoom += 1
    case .buffers: waitingForBuffers.append(connection)
    case .memory: waitingForMemory.append(connection)
    case .coldRead, .output, .commit, .detached, .stream, .watch, .none: break
    }
  }

  /// What a connection waited for has come: serves on where it stopped.
  mutating func resume(_ connection: UnsafeMutablePointer<Connection>) {
    if connection.pointee.isClosed { return }
    if connection.pointee.parking == .commit { return }
    connection.pointee.parking =
      connection.pointee.backlog.isEmpty || connection.pointee.datagram != nil ? .none : .output
    if connection.pointee.parking == .output { return }
    // It waits for its turn and nothing else.
    if connection.pointee.isYielded { return }
    if connection.pointee.incoming != nil {
      finishLargeIfWhole(connection)
    } else if connection.pointee.pendingCount > 0 {
      // Served from the thread's buffer, as if it had just come.
      let count = connection.pointee.pendingCount
      if count <= inputCapacity {
        input.copyMemory(from: connection.pointee.pendingBytes, byteCount: count)
        process(connection, input, count)
      } else {
        process(connection, connection.pointee.pendingBytes, count)
      }
    }
    finishResume(connection)
    settle(connection)
  }

  /// After a turn that took up what was left over.
  mutating func finishResume(_ connection: UnsafeMutablePointer<Connection>) {
    if connection.pointee.isClosed || connection.pointee.isYielded { return }
    if connection.pointee.parking == .none {
      connection.pointee.waitsSince = 0
      connection.pointee.dropAnswers()
      connection.pointee.scanGivenUp = false
      if connection.pointee.isDetached {
        finishDetached(connection)
        return
      }
      if connection.pointee.datagram != nil {
        finishDatagram(connection)
        return
      }
      if !connection.pointee.isReading { setInterest(connection, reading: true) }
      if connection.pointee.secure != nil { takeMoreInTurn(connection) }
    }
  }

  mutating func holdForCommit(_ connection: UnsafeMutablePointer<Connection>) {
    // It may have been parked for something else besides; `resume` finds that out anew.
    let isListed = connection.pointee.parking == .room
    noteWait(connection)
    connection.pointee.parking = .commit
    connection.pointee.commitTicket = cache.commitTicket()
    if !isListed { waitingForCycle.append(connection) }
    updateWants()
  }

  mutating func releaseReplies(_ connection: UnsafeMutablePointer<Connection>) {
    noteCommitted(connection)
    connection.pointee.parking = connection.pointee.stream == nil ? .none : .stream
    if !drainBacklog(connection) { return }
    if connection.pointee.parking == .none { resume(connection) }
    settle(connection)
  }

  mutating func cycleEnded(_ number: UInt64, succeeded: Bool) {
    let waiting = waitingForCycle
    waitingForCycle.removeAll()
    for connection in waiting {
      if connection.pointee.parking == .commit {
        if connection.pointee.commitTicket > number {
          waitingForCycle.append(connection)
        } else if succeeded {
          releaseReplies(connection)
        } else {
          // What it was about to acknowledge is not in the file: no reply is the honest one.
          close(connection)
        }
      } else if connection.pointee.parking == .room {
        // Whoever waits for something else by now is woken by that.
        resume(connection)
      }
    }
    updateWants()
  }

  /// Those whose patience ends, and those whose wake-up may have been missed.
  mutating func retryOverdue() {
    let time = Self.monotonicMilliseconds()
    if !waitingForScan.isEmpty {
      let waiting = waitingForScan
      waitingForScan.removeAll()
      for connection in waiting {
        if connection.pointee.parkedUntil <= time {
          connection.pointee.scanGivenUp = true
          if connection.pointee.parking == .scan { resume(connection) }
        } else {
          waitingForScan.append(connection)
        }
      }
    }
    if !waitingForCycle.isEmpty {
      let waiting = waitingForCycle
      waitingForCycle.removeAll()
      let done = cache.lastCommittedCycle
      for connection in waiting {
        if connection.pointee.parking == .commit {
          if connection.pointee.commitTicket <= done {
            releaseReplies(connection)
          } else {
            waitingForCycle.append(connection)
          }
        } else if connection.pointee.parking == .room {
          resume(connection)
        }
      }
    }
    updateWants()
  }

  func updateWants() {
    mailbox.wantsCycles.store(!waitingForCycle.isEmpty, ordering: .releasing)
    mailbox.wantsScan.store(!waitingForScan.isEmpty, ordering: .releasing)
  }
}
