import ArgumentParser
import ColdTools
import Glibc

/// Asks a running server what it has learnt about its sizes.
struct Advise: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "advise",
    abstract: "Say what more or less RAM, a bigger file or another rule of promotion would bring a running server.",
    discussion: "The server follows a sample of its keys all the time; a question costs it next to nothing.")

  @Argument(help: "host:port, or the path of a socket")
  var server = "127.0.0.1:11211"
  @Flag(name: .customLong("all"), help: "the estimated curve too, and how large the sample is")
  var all = false

  func run() throws {
    let answer: [StatisticsClient.Pair]
    do throws(StatisticsClient.Failure) {
      answer = try StatisticsClient(server).ask("advice")
    } catch {
      complain("\(server): \(error.description)")
      throw ExitCode(ToolStatus.failed)
    }
    let sentences = answer.filter { $0.name.hasPrefix("advice:") }.map(\.value)
    var text =
      sentences.isEmpty
      ? "Too little is known yet: the server has to have served some thousands of reads.\n"
      : sentences.map { $0 + "\n" }.joined()
    if all { text += "\n" + Self.table(answer) }
    try say(text)
  }

  /// The other figures, as they came.
  private static func table(_ answer: [StatisticsClient.Pair]) -> String {
    let others = answer.filter { !$0.name.hasPrefix("advice:") }
    let width = others.map(\.name.count).max() ?? 0
    return others.map { $0.name + String(repeating: " ", count: width + 2 - $0.name.count) + $0.value + "\n" }.joined()
  }
}

/// Asks a server for a topic of `stats`, over the text protocol.
struct StatisticsClient {
  struct Failure: Error, CustomStringConvertible {
    let description: String
  }
  struct Pair: Equatable {
    var name: String
    var value: String
  }

  private let address: String
  /// For connecting and for each read.
  private static let timeoutSeconds = 5
  private static let maximumAnswer = 1 << 20

  /// `address`: host:port, [host]:port, or what contains a slash, the path of a socket.
  init(_ address: String) { self.address = address }

  func ask(_ topic: String) throws(Failure) -> [Pair] {
    let descriptor = try connected()
    defer { close(descriptor) }
    let request = Array("stats \(topic)\r\n".utf8)
    guard send(descriptor, request, request.count, Int32(MSG_NOSIGNAL)) == request.count else {
      throw Self.last("can't ask")
    }
    var answer: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 14)
    while true {
      let count = recv(descriptor, &buffer, buffer.count, 0)
      if count < 0 { throw Self.last("no answer") }
      if count == 0 { throw Failure(description: "the server hung up") }
      answer += buffer[..<count]
      if let pairs = try Self.parse(answer) { return pairs }
      if answer.count > Self.maximumAnswer { throw Failure(description: "this is no answer to stats") }
    }
  }

  /// nil: it is not whole yet.
  static func parse(_ answer: [UInt8]) throws(Failure) -> [Pair]? {
    var pairs: [Pair] = []
    let text = String(decoding: answer, as: UTF8.self)
    let lines = text.split(separator: "\r\n", omittingEmptySubsequences: false)
    // What follows the last end of a line is not whole.
    for line in lines.dropLast() {
      if line == "END" { return pairs }
      let words = line.split(separator: " ", maxSplits: 2)
      guard words.count >= 2, words[0] == "STAT" else {
        if line == "ERROR" { throw Failure(description: "it gives no advice: an older version, or memcached") }
        throw Failure(description: "it answered: \(line)")
      }
      pairs.append(Pair(name: String(words[1]), value: words.count > 2 ? String(words[2]) : ""))
    }
    return nil
  }

  private static func last(_ what: String) -> Failure {
    Failure(description: "\(what): \(String(cString: strerror(errno)))")
  }

  private func connected() throws(Failure) -> Int32 {
    if address.contains("/") { return try connectedToPath() }
    guard let colon = address.lastIndex(of: ":"), UInt16(address[address.index(after: colon)...]) != nil else {
      throw Failure(description: "not an address: host:port, or the path of a socket")
    }
    var host = String(address[..<colon])
    if host.hasPrefix("[") && host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>? = nil
    let status = getaddrinfo(host, String(address[address.index(after: colon)...]), &hints, &found)
    guard status == 0 else { throw Failure(description: String(cString: gai_strerror(status))) }
    defer { freeaddrinfo(found) }
    var failure = Failure(description: "no such host")
    var next = found
    while let candidate = next {
      let descriptor = socket(candidate.pointee.ai_family, candidate.pointee.ai_socktype, 0)
      if descriptor >= 0 {
        Self.limitTime(descriptor)
        if connect(descriptor, candidate.pointee.ai_addr, candidate.pointee.ai_addrlen) == 0 { return descriptor }
        failure = Self.last("can't connect")
        close(descriptor)
      }
      next = candidate.pointee.ai_next
    }
    throw failure
  }

  private func connectedToPath() throws(Failure) -> Int32 {
    var target = sockaddr_un()
    target.sun_family = sa_family_t(AF_UNIX)
    let path = Array(address.utf8)
    guard path.count < MemoryLayout.size(ofValue: target.sun_path) else {
      throw Failure(description: "the path of the socket is too long")
    }
    withUnsafeMutableBytes(of: &target.sun_path) { $0.copyBytes(from: path) }
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { throw Self.last("can't connect") }
    Self.limitTime(descriptor)
    let status = withUnsafePointer(to: &target) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    if status == 0 { return descriptor }
    let failure = Self.last("can't connect")
    close(descriptor)
    throw failure
  }

  private static func limitTime(_ descriptor: Int32) {
    var limit = timeval(tv_sec: timeoutSeconds, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
  }
}
