import Testing

@testable import thermocline

@Suite struct GetoptTests {
  @Test(
    arguments: [
      (["-vvd", "-m64"], ["-v", "-v", "-d", "-m", "64"]), (["-p11211", "-U", "0"], ["-p", "11211", "-U", "0"]),
      (["-dvm", "64"], ["-d", "-v", "-m", "64"]), (["-o", "a=b,c"], ["-o", "a=b,c"]), (["-m", "-5"], ["-m", "-5"]),
      (["--port=11211", "serve"], ["--port=11211", "serve"]), (["-p"], ["-p"]),
    ])
  func clustersAndJoinedValuesAreSeparated(given: [String], expected: [String]) {
    #expect(Getopt.separated(given) == expected)
  }

  @Test func memcachedsOptionsBecomeSettings() throws {
    let words = Getopt.separated([
      "-l127.0.0.1:5", "-m128", "-c", "2000", "-t2", "-I2m", "-vv", "-M", "-F", "-k", "-f", "1.1", "-o",
      "modern,slab_chunk_max=16384", "-oext_path=/tmp/x.db:2g", "-U0",
    ])
    let serve = try Serve.parse(words)
    let settings = try serve.settings(environment: ["HOME": "/h"])
    #expect(settings.hotMemory == 128 << 20)
    #expect(settings.maximumConnections == 2000)
    #expect(settings.threads == 2)
    #expect(settings.maximumItemSize == 2 << 20)
    #expect(settings.verbosity == 2)
    #expect(settings.evictionsDisabled)
    #expect(settings.flushDisabled)
    #expect(settings.cold?.path == "/tmp/x.db")
    #expect(settings.cold?.limit == 2 << 30)
    #expect(settings.withoutMeaningHere == ["-f", "-k", "-o modern", "-o slab_chunk_max"])
  }

  @Test(
    arguments: [
      ["-I", "1000"], ["-c", "0"], ["-t", "0"], ["-B", "http"], ["-Z"], ["-S"], ["-Y", "f"], ["-U", "5"],
      ["-o", "nonsense"], ["-p", "x"], ["-m", "0"], ["--durability", "never"],
    ])
  func whatMemcachedRefusesOrIsNotThereIsRefused(words: [String]) throws {
    let serve = try Serve.parse(Getopt.separated(words))
    #expect(throws: (any Error).self) { try serve.settings(environment: ["HOME": "/h"]) }
  }
}
