// swift-tools-version: 6.2
import PackageDescription

/// `make fuzz` builds with this set: the fuzz targets have no main of their own and need the sanitizers.
let fuzzes = Context.environment["THERMOCLINE_FUZZ"] != nil
let sanitized = ["-sanitize=fuzzer,address"]
let common: [SwiftSetting] =
  [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]
  + (fuzzes ? [.unsafeFlags(sanitized + ["-enable-testing", "-DSANITIZED"])] : [])
/// Targets on the path of a request: the optimiser may look across their borders (docs/design.md, Hot path).
let hot: [SwiftSetting] =
  common + [.unsafeFlags(["-cross-module-optimization"], .when(configuration: .release))]

let package = Package(
  name: "thermocline",
  products: [.executable(name: "thermocline", targets: ["thermocline"])],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.0.0"),
  ],
  targets: [
    .systemLibrary(
      name: "CSQLite", path: "Sources/CSQLite", pkgConfig: "sqlite3",
      providers: [.apt(["libsqlite3-dev"])]),
    .systemLibrary(
      name: "COpenSSL", path: "Sources/COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
    .systemLibrary(name: "CSystem", path: "Sources/CSystem"),
    .target(
      name: "Migrations", path: "migrations", exclude: ["README.md"],
      resources: [
        .embedInCode("m0001_create_items.sql"), .embedInCode("m0002_create_views.sql"),
        .embedInCode("m0003_create_recently_used.sql"), .embedInCode("m0004_pack_rows.sql"),
      ], swiftSettings: common
    ),
    .target(name: "CacheCore", dependencies: ["CSystem"], swiftSettings: hot),
    .target(name: "Console", swiftSettings: common),
    .target(name: "Metrics", swiftSettings: hot),
    .target(name: "SQLite", dependencies: ["CSQLite", "CSystem"], swiftSettings: hot),
    .target(name: "HotTier", dependencies: ["CSystem", "CacheCore"], swiftSettings: hot),
    .target(name: "MemcachedProtocol", dependencies: ["CacheCore"], swiftSettings: hot),
    .target(
      name: "Settings", dependencies: ["CacheCore", .product(name: "Yams", package: "Yams")],
      swiftSettings: common),
    .target(name: "TLS", dependencies: ["COpenSSL", "CacheCore"], swiftSettings: hot),
    .target(
      name: "ColdTier",
      dependencies: ["CacheCore", "SQLite", "Migrations", .product(name: "Logging", package: "swift-log")],
      swiftSettings: hot),
    .target(
      name: "ColdTools",
      dependencies: [
        "CacheCore", "ColdTier", "Console", "MemcachedProtocol", .product(name: "Logging", package: "swift-log"),
      ], swiftSettings: hot),
    .target(name: "MemcachedClient", dependencies: ["CacheCore", "TLS"], swiftSettings: common),
    .target(
      name: "LoadGenerator", dependencies: ["CSystem", "CacheCore", "MemcachedClient"], swiftSettings: common),
    .target(name: "LiveView", dependencies: ["Console", "MemcachedClient"], swiftSettings: common),
    .target(
      name: "Transfer", dependencies: ["CacheCore", "ColdTools", "Console", "MemcachedClient", "MemcachedProtocol"],
      swiftSettings: common),
    .target(name: "Advice", dependencies: ["CacheCore", "HotTier"], swiftSettings: common),
    .target(
      name: "TieredCache",
      dependencies: ["CacheCore", "HotTier", "ColdTier", "Advice", .product(name: "Logging", package: "swift-log")],
      swiftSettings: hot),
    .target(
      name: "Server",
      dependencies: [
        "CSystem", "CacheCore", "HotTier", "ColdTier", "Advice", "TieredCache", "MemcachedProtocol", "Metrics",
        "Settings", "TLS", .product(name: "Logging", package: "swift-log"),
      ], swiftSettings: hot),
    .target(
      name: "Admin",
      dependencies: ["CSystem", "CacheCore", "Metrics", .product(name: "Logging", package: "swift-log")],
      resources: [
        .embedInCode("Page/dashboard.html"), .embedInCode("Page/dashboard.css"), .embedInCode("Page/dashboard.js"),
      ],
      swiftSettings: common),
    .executableTarget(
      name: "thermocline",
      dependencies: [
        "Admin", "CacheCore", "Server", "Settings", "ColdTools", "ColdTier", "Console", "LiveView", "LoadGenerator",
        "MemcachedClient", "TLS",
        "Transfer",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
      ], swiftSettings: common),
    .executableTarget(
      name: "Benchmarks",
      dependencies: [
        "LoadGenerator", "MemcachedClient", "CSystem",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: common),
    .target(name: "SQLiteFaults", dependencies: ["CSQLite"], path: "Tests/SQLiteFaults", swiftSettings: common),
    .testTarget(name: "CacheCoreTests", dependencies: ["CacheCore"], swiftSettings: common),
    .testTarget(name: "SQLiteTests", dependencies: ["SQLite"], swiftSettings: common),
    .testTarget(name: "HotTierTests", dependencies: ["HotTier", "CacheCore"], swiftSettings: common),
    .testTarget(name: "AdviceTests", dependencies: ["Advice", "HotTier", "CacheCore"], swiftSettings: common),
    .target(
      name: "FuzzProperties", dependencies: ["MemcachedProtocol"], path: "Tests/Fuzz/Properties",
      swiftSettings: common),
    .testTarget(
      name: "MemcachedProtocolTests", dependencies: ["MemcachedProtocol", "CacheCore", "FuzzProperties"],
      swiftSettings: common),
    .testTarget(name: "MetricsTests", dependencies: ["Metrics"], swiftSettings: common),
    .testTarget(name: "AdminTests", dependencies: ["Admin", "Metrics"], swiftSettings: common),
    .testTarget(name: "SettingsTests", dependencies: ["Settings"], swiftSettings: common),
    .testTarget(
      name: "ColdTierTests",
      dependencies: [
        "ColdTier", "CacheCore", "SQLite", "SQLiteFaults", "Migrations",
        .product(name: "Logging", package: "swift-log"),
      ], exclude: ["versions"], swiftSettings: common),
    .testTarget(
      name: "ColdToolsTests",
      dependencies: [
        "ColdTools", "ColdTier", "CacheCore", "Console", "SQLite", .product(name: "Logging", package: "swift-log"),
      ], swiftSettings: common),
    .testTarget(
      name: "TieredCacheTests",
      dependencies: [
        "TieredCache", "CacheCore", "HotTier", "ColdTier", "Advice", "SQLiteFaults",
        .product(name: "Logging", package: "swift-log"),
      ], swiftSettings: common),
    .testTarget(
      name: "ServerTests",
      dependencies: [
        "Server", "Settings", "TieredCache", "CacheCore", "HotTier", "ColdTier", "SQLiteFaults",
        .product(name: "Logging", package: "swift-log"),
      ], swiftSettings: common),
    .testTarget(
      name: "MemcachedClientTests", dependencies: ["MemcachedClient"], swiftSettings: common),
    .testTarget(name: "LiveViewTests", dependencies: ["LiveView", "MemcachedClient"], swiftSettings: common),
    .testTarget(
      name: "TransferTests", dependencies: ["Transfer", "CacheCore"], swiftSettings: common),
    .testTarget(name: "ThermoclineTests", dependencies: ["thermocline", "Settings"], swiftSettings: common),
  ]
)

if fuzzes {
  // A source file may have one target only: ServerFuzz and FileFuzz share some with the tests, ConfigFuzz with the
  // program, since the command line is read there.
  let program = package.targets.first { $0.name == "thermocline" }!
  package.targets.removeAll { $0.type == .test || $0.name == "thermocline" }
  package.products = []
  // gold, the default, cannot link the sanitizers here.
  let linking: [LinkerSetting] = [.unsafeFlags(["-use-ld=lld"] + sanitized)]
  package.targets += [
    .target(name: "FuzzDriver", path: "Tests/Fuzz/Driver", swiftSettings: common),
    .executableTarget(
      name: "ProtocolFuzz", dependencies: ["FuzzDriver", "FuzzProperties"], path: "Tests/Fuzz/ProtocolFuzz",
      swiftSettings: common, linkerSettings: linking),
    .executableTarget(
      name: "ServerFuzz",
      dependencies: [
        "FuzzDriver", "Server", "TieredCache", "ColdTier", "CacheCore", "Settings",
        .product(name: "Logging", package: "swift-log"),
      ], path: "Tests", sources: ["Fuzz/ServerFuzz/ServerFuzz.swift", "ServerTests/ServedStream.swift"],
      swiftSettings: common, linkerSettings: linking),
    .executableTarget(
      name: "FileFuzz",
      dependencies: [
        "FuzzDriver", "TieredCache", "HotTier", "ColdTier", "SQLite", "CSQLite", "CacheCore",
        .product(name: "Logging", package: "swift-log"),
      ], path: "Tests",
      sources: ["Fuzz/FileFuzz"]
        + ["Harness", "SmallFile", "FileDamage"].map { "TieredCacheTests/\($0).swift" },
      swiftSettings: common, linkerSettings: linking),
    .executableTarget(
      name: "ConfigFuzz", dependencies: program.dependencies + ["FuzzDriver"], path: ".",
      exclude: ["Sources/thermocline/Thermocline.swift"],
      sources: ["Sources/thermocline", "Tests/Fuzz/ConfigFuzz", "Tests/ThermoclineTests/AnyConfiguration.swift"],
      swiftSettings: common, linkerSettings: linking),
  ]
}
