import Foundation
import Glibc
import MemcachedClient

/// A failure that ends the benchmark, in one line.
struct BenchmarkError: Error, CustomStringConvertible {
  let description: String
}

/// A server under test, on a port of loopback, ended by its process id.
final class Peer {
  let name: String
  let port: Int
  var address: ServerAddress { ServerAddress("127.0.0.1:\(port)")! }
  /// From the start of the program until it took a connection.
  private(set) var secondsToAnswer = 0.0
  private let process = Process()

  /// `arguments` follow the address and port; `settings` are added to the environment.
  init(
    name: String, executable: String, arguments: [String], settings: [String: String] = [:],
    niceness: Int32 = Niceness.measured
  ) throws {
    self.name = name
    port = try Self.freePort()
    process.executableURL = URL(fileURLWithPath: executable)
    process.arguments = ["-l", "127.0.0.1", "-p", "\(port)"] + arguments
    process.environment = ProcessInfo.processInfo.environment.merging(settings) { $1 }
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    setNiceness(niceness)
    defer { setNiceness(0) }
    let begin = monotonicNanoseconds()
    try process.run()
    for _ in 0..<10_000 {
      if let connection = try? Client(port: port) {
        secondsToAnswer = Double(monotonicNanoseconds() - begin) / 1e9
        connection.close()
        return
      }
      usleep(1000)
    }
    throw BenchmarkError(description: "\(executable) does not answer on port \(port)")
  }

  /// The path of a program that is named as in a shell.
  static func find(_ name: String) -> String {
    if name.contains("/") { return name }
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
    return path.split(separator: ":").map { "\($0)/\(name)" }
      .first { FileManager.default.isExecutableFile(atPath: $0) } ?? name
  }

  func stop() {
    process.terminate()
    process.waitUntilExit()
  }

  /// Ends it at once, as a crash does.
  func kill() {
    Glibc.kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  /// Bytes that threads of these names have given to system calls that write to files.
  func writtenBytes(by names: Set<String>) -> Int {
    threads(names).reduce(0) { sum, folder in
      let text = (try? String(contentsOfFile: folder + "/io", encoding: .utf8)) ?? ""
      let line = text.split(separator: "\n").first { $0.hasPrefix("wchar:") }
      return sum + (line.flatMap { Int($0.dropFirst(7)) } ?? 0)
    }
  }

  /// Their folders under /proc.
  private func threads(_ names: Set<String>) -> [String] {
    let tasks = "/proc/\(process.processIdentifier)/task"
    let numbers = (try? FileManager.default.contentsOfDirectory(atPath: tasks)) ?? []
    return numbers.map { "\(tasks)/\($0)" }.filter { folder in
      let name = (try? String(contentsOfFile: folder + "/comm", encoding: .utf8)) ?? ""
      return names.contains(name.trimmingCharacters(in: .newlines))
    }
  }

  /// Bytes of resident memory.
  var residentBytes: Int { memory("VmRSS") }
  /// The most bytes that were resident at once since `forgetPeak`.
  var peakBytes: Int { memory("VmHWM") }
  /// Of the resident bytes those that are pages of files: code, and what is mapped.
  var fileBytes: Int { memory("RssFile") }

  func forgetPeak() {
    guard let file = fopen("/proc/\(process.processIdentifier)/clear_refs", "w") else { return }
    fputs("5", file)
    fclose(file)
  }

  /// Nanoseconds of processor time, of all its threads that still live.
  var processorNanoseconds: UInt64 {
    let tasks = "/proc/\(process.processIdentifier)/task"
    let threads = (try? FileManager.default.contentsOfDirectory(atPath: tasks)) ?? []
    return threads.reduce(0) { sum, thread in
      let text = (try? String(contentsOfFile: "\(tasks)/\(thread)/schedstat", encoding: .utf8)) ?? ""
      return sum + (text.split(separator: " ").first.flatMap { UInt64($0) } ?? 0)
    }
  }

  /// Seconds of processor time, of all its threads that still live.
  var processorSeconds: Double { Double(processorNanoseconds) / 1e9 }

  /// A line of the process's status, in bytes.
  private func memory(_ name: String) -> Int {
    guard let text = try? String(contentsOfFile: "/proc/\(process.processIdentifier)/status", encoding: .utf8),
      let line = text.split(separator: "\n").first(where: { $0.hasPrefix(name + ":") }),
      let kibibytes = Int(line.split(whereSeparator: { !$0.isNumber }).first ?? "")
    else { return 0 }
    return kibibytes << 10
  }

  private static func freePort() throws -> Int {
    let s = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { Glibc.close(s) }
    var address = loopback(port: 0)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let port: Int? = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
        bind(s, raw, length) == 0 && getsockname(s, raw, &length) == 0
          ? UnsafeRawPointer(raw).assumingMemoryBound(to: sockaddr_in.self).pointee.sin_port.byteSwapped : nil
      }
      .map(Int.init)
    }
    guard let port else { throw BenchmarkError(description: "no free port") }
    return port
  }
}

func loopback(port: Int) -> sockaddr_in {
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = in_port_t(port).byteSwapped
  address.sin_addr.s_addr = UInt32(0x7f00_0001).byteSwapped
  return address
}
