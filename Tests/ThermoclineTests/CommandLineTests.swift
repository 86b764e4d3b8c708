import Settings
import Testing

@testable import thermocline

@Suite("What a command line makes of the settings")
struct CommandLineTests {
  private func settings(_ line: String, environment: [String: String] = [:]) throws -> Settings {
    let arguments = Getopt.read(line.split(separator: " ").map(String.init)).arguments
    return try Serve.parse(arguments).settings(environment: environment)
  }

  @Test("Without options everything has memcached's defaults")
  func defaults() throws {
    let settings = try settings("", environment: ["HOME": "/home/a"])
    #expect(settings.listeners == [ListenAddress(host: nil, port: 11211)])
    #expect(settings.threads == 4)
    #expect(settings.hotMemory == 64 << 20)
    #expect(settings.maximumItemSize == 1 << 20)
    #expect(settings.maximumConnections == 1024)
    #expect(settings.backlog == 1024)
    #expect(settings.cold?.path == "/home/a/.local/state/thermocline/thermocline-11211.db")
    #expect(settings.cold?.pathIsDefault == true)
    #expect(settings.cold?.limit == 1 << 30)
    #expect(settings.cold?.durability == .interval)
    #expect(settings.withoutMeaningHere.isEmpty)
  }

  @Test("memcached's options are mapped")
  func mapped() throws {
    let settings = try settings(
      "-p 12345 -l 127.0.0.1,[::1]:12346 -m 100 -c 50 -t 2 -I 2m -R 5 -b 7 -M -C -F -vv -d -P /tmp/x.pid -u nobody"
        + " -o idle_timeout=30,hashpower=20 -e /tmp/x.db -f 1.5 -n 48 -k -U 0 -B auto")
    #expect(
      settings.listeners == [ListenAddress(host: "127.0.0.1", port: 12345), ListenAddress(host: "::1", port: 12346)])
    #expect(settings.hotMemory == 100 << 20)
    #expect(settings.maximumConnections == 50)
    #expect(settings.threads == 2)
    #expect(settings.maximumItemSize == 2 << 20)
    #expect(settings.requestsPerEvent == 5)
    #expect(settings.backlog == 7)
    #expect(
      settings.locksMemory && settings.evictionsDisabled && settings.casDisabled && settings.flushDisabled
        && settings.daemonize)
    #expect(settings.verbosity == 2)
    #expect(settings.pidFile == "/tmp/x.pid")
    #expect(settings.user == "nobody")
    #expect(settings.idleTimeout == 30)
    #expect(settings.cold?.path == "/tmp/x.db")
    #expect(settings.cold?.pathIsDefault == false)
    for option in ["-f", "-n", "-o hashpower"] { #expect(settings.withoutMeaningHere.contains(option)) }
  }

  @Test("Our own options are mapped")
  func own() throws {
    var settings = try settings(
      "--cold-path /a/b.db --cold-limit 2GiB --durability always --durability-interval 250ms --promote-after 0"
        + " --demote-after 7d")
    #expect(settings.cold?.path == "/a/b.db")
    #expect(settings.cold?.limit == 2 << 30)
    #expect(settings.cold?.durability == .always)
    #expect(settings.cold?.intervalMilliseconds == 250)
    #expect(settings.promoteAfter == 0)
    #expect(settings.demoteAfter == 604_800)
    settings = try self.settings("-o ext_path=/a/e.db:64m")
    #expect(settings.cold?.path == "/a/e.db")
    #expect(settings.cold?.limit == 64 << 20)
    #expect(try self.settings("--no-cold").cold == nil)
  }

  @Test("A password file alone means text; with SASL both protocols ask")
  func authentication() throws {
    #expect(try settings("-B binary").wireProtocol == .binary)
    #expect(try settings("").wireProtocol == .negotiating)
    let text = try settings("-Y /p -l 127.0.0.1,proto[negotiating]:127.0.0.1:5")
    #expect(text.passwordFile == "/p" && text.wireProtocol == .ascii && !text.saslEnabled)
    #expect(text.listeners.allSatisfy { $0.wire == nil })
    let both = try settings("-S -Y /p")
    #expect(both.saslEnabled && both.wireProtocol == .negotiating)
    #expect(try settings("-S", environment: ["MEMCACHED_SASL_PWDB": "/q"]).passwordFile == "/q")
  }

  @Test("A unix socket takes the place of TCP")
  func unixSocket() throws {
    let settings = try settings("-s /tmp/a.sock -a 770 -p 0")
    #expect(settings.listeners.isEmpty)
    #expect(settings.unixSocketPath == "/tmp/a.sock")
    #expect(settings.unixSocketMode == 0o770)
  }

  @Test("Port -1 is any free port, and port 0 no TCP")
  func ports() throws {
    #expect(try settings("-p -1").listeners == [ListenAddress(host: nil, port: 0)])
    #expect(try settings("--port=-1").listeners == [ListenAddress(host: nil, port: 0)])
    #expect(throws: SettingsError.self) { try settings("-p 0") }
  }

  @Test("The command line wins over the environment, and the state directory is systemd's, then XDG's")
  func order() throws {
    let environment = ["THERMOCLINE_HOT_MEMORY": "32m", "THERMOCLINE_THREADS": "3", "THERMOCLINE_VERBOSITY": "3"]
    let settings = try settings("-t 2 -v", environment: environment)
    #expect(settings.hotMemory == 32 << 20)
    #expect(settings.threads == 2)
    #expect(settings.verbosity == 1)
    let places = ["STATE_DIRECTORY": "/var/lib/thermocline:/x", "XDG_STATE_HOME": "/s", "HOME": "/h"]
    #expect(try self.settings("-p 5", environment: places).cold?.path == "/var/lib/thermocline/thermocline-5.db")
    #expect(
      try self.settings("-p 5", environment: ["XDG_STATE_HOME": "/s"]).cold?.path
        == "/s/thermocline/thermocline-5.db")
  }

  @Test(
    "What memcached refuses, and what is not there yet, is refused with its name",
    arguments: [
      ("-c 0", "-c"), ("-t 0", "-t"), ("-R 0", "-R"), ("-I 1000", "-I"), ("-I 2g", "-I"), ("-B http", "-B"),
      ("-f 1", "-f"), ("-f x", "-f"), ("-n 0", "-n"), ("-N 0", "-N"), ("-N 9", "-N"),
      ("-p 65536", "-p"), ("-p x", "-p"), ("-m 0", "-m"), ("-m x", "-m"), ("-m -5", "-m"), ("-U 65536", "-U"),
      ("-U x", "-U"),
      ("-Z", "-Z"), ("-a 999", "-a"), ("-I 40m", "half of the memory"),
      ("-S", "-Y"), ("-S -Y f -B ascii", "-B ascii"), ("-Y f -B binary", "-S"), ("-Y f -U 11211", "UDP"),
      ("-Y f -l proto[binary]:127.0.0.1", "-S"),
      ("-o nonsense", "nonsense"), ("-o hashpower=11", "hashpower"), ("-o hashpower", "hashpower"),
      ("-o slab_automove=3", "slab_automove"), ("-o hash_algorithm=md5", "hash_algorithm"),
      ("-o hot_lru_pct=80", "hot_lru_pct"), ("-o tail_repair_time=9", "tail_repair_time"),
      ("-o slab_chunk_max=0", "slab_chunk_max"), ("-o ssl_verify_mode=4", "ssl_verify_mode"),
      ("-o proxy_config=x", "proxy"),
      ("-o ext_path=/a", "ext_path"), ("-o ext_path=/a:x", "ext_path"), ("-o idle_timeout", "idle_timeout"),
      ("-o ssl_min_version=4", "ssl_min_version"), ("-Z -o ssl_chain_cert=x,ssl_verify_mode=1", "ssl_ca_cert"),
      ("-Z -p 0 -U 11211 -o ssl_chain_cert=x", "TCP"), ("-Z -l mtls:127.0.0.1 -o ssl_chain_cert=x", "ssl_ca_cert"),
      ("-l notls:127.0.0.1", "TLS"), ("-l proto[proxy]:127.0.0.1", "proxy"), ("-l 127.0.0.1:x", "port"),
      ("--cold-limit 1", "--cold-limit"), ("--durability sometimes", "always"),
      ("--promote-after x", "--promote-after"),
      ("--config /nonexistent/file", "/nonexistent/file"),
    ])
  func refused(line: String, named: String) {
    do {
      _ = try settings(line)
      Issue.record("\(line) was accepted")
    } catch let error as SettingsError {
      #expect(error.description.contains(named))
      #expect(!error.description.contains("\n"))
    } catch {
      Issue.record("\(line): \(error)")
    }
  }

  @Test(
    "What memcached takes is taken",
    arguments: [
      "-o modern", "-o no_modern", "-o relaxed_privileges", "-o slab_chunk_max=512", "-o maxconns_fast,no_lru_crawler",
      "-o slab_automove", "-o slab_automove_ratio=0.8", "-o hash_algorithm=xxh3", "-o ext_item_age=2,ext_threads=1",
      "-o temporary_ttl=-1", "-D :", "-L", "-k", "-r", "-X", "-W", "-N 4",
      "-o no_lru_maintainer -o lru_crawler_sleep=5",
      "-I 512k", "-U 0", "-B ascii", "-l tag[ab]:127.0.0.1", "-o drop_privileges", "-vvvv", "-u root",
    ])
  func accepted(line: String) throws {
    _ = try settings(line)
  }

  @Test("The version names memcached's first, as clients expect")
  func version() {
    #expect(versionLine.hasPrefix("memcached 1.6.45 (thermocline "))
    let help = Serve.helpMessage(columns: 100)
    #expect(help.contains("--unix-socket"))
    #expect(help.contains("enable-sasl") && help.contains("enable-ssl"))
  }
}
