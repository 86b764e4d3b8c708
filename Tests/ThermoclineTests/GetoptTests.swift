import Testing

@testable import thermocline

@Suite("Command lines as getopt reads them")
struct GetoptTests {
  private func read(_ line: String) -> [String] {
    Getopt.read(line.split(separator: " ").map(String.init)).arguments
  }

  @Test("Clusters and joined values are taken apart")
  func clusters() {
    #expect(read("-vvd") == ["-v", "-v", "-d"])
    #expect(read("-m64 -p11211") == ["-m", "64", "-p", "11211"])
    #expect(read("-vm 64") == ["-v", "-m", "64"])
    #expect(read("-vvp1234 -U 0") == ["-v", "-v", "-p", "1234", "-U", "0"])
    #expect(read("-o a=b,c -oslab_sizes=1-2") == ["-o", "a=b,c", "-o", "slab_sizes=1-2"])
    #expect(read("-p -1") == ["-p", "-1"])
    #expect(read("-p-1") == ["-p", "-1"])
    #expect(Getopt.read(["-m", " 64"]).arguments == ["-m", "64"])
  }

  @Test("Long options are completed, ours only as they are")
  func longOptions() {
    #expect(read("--port=11211 --threads 4") == ["--port=11211", "--threads", "4"])
    #expect(read("--thr=4 --mem 1") == ["--threads=4", "--mem", "1"])  // memory-limit or memory-file
    #expect(read("--memory-l 64") == ["--memory-limit", "64"])
    #expect(read("--cold-path x --no-cold") == ["--cold-path", "x", "--no-cold"])
    #expect(read("--verbose=3 --verb") == ["--verbose", "--verbose"])
    #expect(read("--nonsense --pid=x") == ["--nonsense", "--pidfile=x"])
  }

  @Test("A value is never taken for an option")
  func values() {
    let read = Getopt.read(["-s", "-V", "-u", "--help", "--user", "-h"])
    #expect(read.question == nil)
    #expect(read.arguments == ["-s", "-V", "-u", "--help", "--user", "-h"])
  }

  @Test("The first question counts")
  func questions() {
    #expect(Getopt.read(["-h"]).question == .help)
    #expect(Getopt.read(["-p", "1", "-dVh"]).question == .version)
    #expect(Getopt.read(["--help", "-V"]).question == .help)
    #expect(Getopt.read(["-i"]).question == .license)
    #expect(Getopt.read(["--vers"]).question == .version)
    #expect(Getopt.read(["serve", "-v"]).question == nil)
    #expect(Getopt.read(["--", "-h"]).question == nil)
  }

  @Test("Every option that getopt knows is declared for the argument parser")
  func declared() {
    for letter in Getopt.withValue {
      #expect(throws: Never.self) { try Serve.parse(["-\(letter)", "1"]) }
    }
    for letter in Getopt.flags where !"hVi".contains(letter) {
      #expect(throws: Never.self) { try Serve.parse(["-\(letter)"]) }
    }
    for name in Getopt.longWithValue + Getopt.ownWithValue {
      #expect(throws: Never.self) { try Serve.parse(["--\(name)", "1"]) }
    }
    for name in Getopt.longFlags where !["help", "version", "license"].contains(name) {
      #expect(throws: Never.self) { try Serve.parse(["--\(name)"]) }
    }
  }
}
