import Settings
import TLS
import TieredCache

extension ServerShared {
  /// Every group of settings that a reload applies.
  var liveSettings: [LiveSetting] {
    [
      liveLog, liveLimits, liveMemory, liveFile, liveTiers, livePolicies, liveAuthentication, liveCertificates,
      secretsToWarnOf,
    ]
  }

  private var liveLog: LiveSetting {
    LiveSetting(keys: ["log.level", "log.format", "log.keys"]) { [self] _, next in
      .ready {
        self.log.set(next)
        self.cache.live.logsKeys.store(next.logsKeys, ordering: .relaxed)
      }
    }
  }

  /// What workers and acceptor ask at each command or connection.
  private var liveLimits: LiveSetting {
    LiveSetting(keys: [
      "max-connections", "reject-at-maximum", "requests-per-event", "udp-reply-datagrams", "idle-timeout",
      "buffers.total", "buffers.per-connection", "buffers.stall-timeout",
      "disable-flush-all", "enable-shutdown", "disable-dumping", "disable-watch", "hot.max-item-size",
      "cold.start-wait",
    ]) { [self] now, next in
      .ready {
        if next.maximumConnections > now.maximumConnections {
          raiseDescriptorLimit(to: next.maximumConnections + 100, logger: self.cache.logger)
        }
        self.cache.live.maximumItemBytes.store(next.maximumItemSize, ordering: .relaxed)
        self.setLimits(Limits(next))
      }
    }
  }

  private var liveMemory: LiveSetting {
    LiveSetting(keys: ["hot.memory"]) { [self] _, next in
      guard cache.canSetMemoryLimit(next.hotMemory) else { return .needsRestart }
      return .ready {
        // Evictions that are allowed again are so before there is less memory; `liveTiers`, which comes later, forbids
        // them after there is more. Else stores would fail in between.
        if !next.evictionsDisabled { self.cache.live.evictionsDisabled.store(false, ordering: .relaxed) }
        _ = self.cache.setMemoryLimit(next.hotMemory)
      }
    }
  }

  private var liveFile: LiveSetting {
    LiveSetting(keys: ["cold.limit", "cold.admission.write-budget"]) { [self] now, next in
      .ready {
        guard let cold = next.cold else { return }
        if cold.limit != now.cold?.limit { self.cache.setColdLimit(Int64(cold.limit)) }
        self.cache.setAdmission(admissionLimits(cold))
      }
    }
  }

  private var liveTiers: LiveSetting {
    LiveSetting(keys: [
      "hot.no-evictions", "hot.policy", "hot.favor-small", "hot.demote-after", "hot.high-watermark",
      "hot.low-watermark",
      "cold.interval", "cold.when-slow", "cold.reads.queue", "cold.reads.timeout", "cold.reads.overload",
      "cold.stop-timeout",
    ]) { [self] _, next in
      .ready {
        let options = tierOptions(next)
        self.cache.live.set(options)
        self.cache.coldReads?.setBounds(
          queue: options.readQueue, timeoutMilliseconds: options.readTimeoutMilliseconds)
        self.cache.setEvictionPolicy(evictionPolicy(next))
      }
    }
  }

  private var livePolicies: LiveSetting {
    LiveSetting(keys: [
      "cold.durability", "cold.admission.min-ttl", "cold.admission.max-item-size", "cold.admission.seen-before",
      "cold.promotion.reads", "cold.promotion.window", "rules",
    ]) { [self] _, next in
      .ready { self.cache.setPolicies(standard: standardPolicy(next), rules: prefixRules(next)) }
    }
  }

  /// Whether there are passwords at all also decides which protocols are spoken, and that can't change.
  private var liveAuthentication: LiveSetting {
    LiveSetting(keys: ["auth-file"], readsFiles: true) { [self] _, next in
      guard let passwords, let path = next.passwordFile else {
        return passwords == nil && next.passwordFile == nil ? .ready {} : .needsRestart
      }
      let fresh = try PasswordList.read(path)
      return .ready {
        passwords.replace(by: fresh)
        self.cache.logger.notice("the password file was read again", metadata: ["users": "\(fresh.count)"])
      }
    }
  }

  /// No setting of its own, but the files of several.
  private var secretsToWarnOf: LiveSetting {
    LiveSetting(keys: [], readsFiles: true) { [self] _, next in
      .ready { for warning in next.warningsOfOpenSecrets { self.cache.logger.warning("\(warning)") } }
    }
  }

  /// The files of TLS. Connections that are open keep the certificates with which they began.
  private var liveCertificates: LiveSetting {
    LiveSetting(
      keys: [
        "tls.certificate", "tls.key", "tls.key-format", "tls.client-roots", "tls.ciphers", "tls.min-version",
      ], readsFiles: true
    ) { [self] _, next in
      guard let tls, let options = TLSOptions(next.tls) else { return .ready {} }
      let reading = try tls.reading(options)
      return .ready {
        self.use(reading)
        self.cache.logger.notice("the certificates were read again")
      }
    }
  }
}
