# Thermocline: `make run` builds and serves, `make test` runs every test. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

SWIFT ?= swift
# APT=no skips the installation of packages, for systems without apt.
APT ?= yes

HOST ?= 127.0.0.1
PORT ?= 11211
COLD_PATH ?= var/thermocline.db
COLD_LIMIT ?= 1G
MEMORY ?= 64
OPTIONS ?=
# A part of the tests: SWIFT_TEST_OPTIONS="--filter HotTierTests", PYTEST_FILES=Tests/Integration/test_restart.py.
SWIFT_TEST_OPTIONS ?=
PYTEST_FILES ?= Tests/Integration

SERVER := .build/release/thermocline
# What `make bench` compares with.
MEMCACHED ?= memcached
VENV := .venv
REQUIREMENTS := Tests/Integration/requirements.txt
FUZZ_BUILD := .build-fuzz
FUZZ_RUNS ?= 1000000
FUZZ_SERVER_RUNS ?= 10000
FUZZ_CONFIG_RUNS ?= 300000
FUZZ_FILE_RUNS ?= 20000
FUZZ_SEED ?= 1
# An input that breaks a property, or takes seconds, is kept in $(FUZZ_BUILD). What lives until the end of a process would count
# as a leak, and to look for those each input is run twice.
FUZZ_OPTIONS = -seed=$(FUZZ_SEED) -max_len=1500 -timeout=30 -rss_limit_mb=4096 -artifact_prefix=$(FUZZ_BUILD)/ \
  -verbosity=0 -print_final_stats=1 -detect_leaks=0
# libFuzzer reports a crash itself. Caches live until the end of the process, and the library that reads files keeps buffers.
FUZZ := SWIFT_BACKTRACE=enable=no ASAN_OPTIONS=detect_leaks=0:max_malloc_fill_size=0:malloc_context_size=3:quarantine_size_mb=16
# A plan of the build that was kept from another product is not found again (SwiftPM 6.3).
FUZZ_BUILD_FLAGS = -c release --scratch-path $(FUZZ_BUILD) --disable-build-manifest-caching
# How long `make soak` keeps up its load, which plan it follows, how many commands a second (0: as many as go), and where
# its report goes.
SOAK_MINUTES ?= 30
SOAK_SEED ?= 1
SOAK_RATE ?= 2000
SOAK_REPORT ?= .build/soak
SWIFT_SOURCES := Sources Tests migrations Package.swift
# The Swift libraries are linked in: the server runs where no Swift is, and takes less memory. (The default linker
# warns about functions of theirs.)
RELEASE := -c release --static-swift-stdlib -Xswiftc -use-ld=lld
# Builds of their own for the sanitizers. One test at a time: with several, the limit of a short one counts the time in which long
# ones, slowed down twenty times, kept it waiting. Tests that model events or crashes run the fewest seeds; loads are smaller.
ASAN_BUILD := .build-asan
TSAN_BUILD := .build-tsan
SANITIZED := EVENT_SEEDS=1 INVARIANT_SEEDS=1 LOAD_DIVISOR=5
# What lives until the end of a process is not given back then: a shard, a clock, a waiting tombstone.
ASAN := ASAN_OPTIONS=detect_leaks=0 $(SANITIZED)
# It measures resident memory, which is the sanitizer's own here.
ASAN_LEAVES_OUT := --deselect test_administration.py::test_the_memory_limit_can_be_changed_while_it_serves
# The exit status of a server with a race is 66, which fails its test. THREAD_SANITIZER: see Sources/CacheCore/Lock.swift.
TSAN := TSAN_OPTIONS="suppressions=$(CURDIR)/Tests/thread-sanitizer.supp" $(SANITIZED)
TSAN_FLAGS := --sanitize=thread -Xswiftc -DTHREAD_SANITIZER --scratch-path $(TSAN_BUILD)
ASAN_FLAGS := --sanitize=address --scratch-path $(ASAN_BUILD)
# Without this an import that Package.swift doesn't declare compiles silently.
IMPORT_CHECK := --explicit-target-dependency-import-check error

# What the toolchain and SwiftPM need to run, to fetch packages, to compile and to link; and SQLite.
BUILD_PACKAGES := make git ca-certificates pkg-config binutils gcc g++ libc6-dev libsqlite3-dev libssl-dev \
  libcurl4-openssl-dev libxml2-dev libncurses-dev zlib1g-dev
# What the integration tests compare with, what they run in, what counts instructions, what looks at the page for
# administrators and (promtool, of prometheus) at its metrics.
TEST_PACKAGES := sqlite3 zstd curl tmux memcached libmemcached-tools libcache-memcached-fast-perl openssl python3 python3-venv valgrind \
  chromium prometheus
# The clients of other languages, what the examples need, and what stands before many servers.
CLIENT_PACKAGES := php-cli php-memcached ruby ruby-dalli ruby-sinatra ruby-webrick golang-go golang-github-bradfitz-gomemcache-dev \
  nutcracker

# What `make deb` needs besides.
DEB_PACKAGES := dpkg-dev binutils gzip
# What makes empty systems for `make fresh`, and what its program is written in.
FRESH_PACKAGES := debootstrap python3
# What of the tests is run there: none, short, all, clients (all, and those of `make clients`).
FRESH_TESTS ?= all
FRESH_OPTIONS ?=

.PHONY: help run build deb deb-packages fresh test unit integration fuzz sanitize sanitize-address sanitize-thread lint format soak soak-load soak-tests bench \
        clients clean swift-present build-packages test-packages client-packages

help: ## list what make can do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

run: build ## build and serve on 127.0.0.1:11211 with the cold tier in var/ (PORT=, MEMORY=, COLD_PATH=, COLD_LIMIT=, OPTIONS=)
	@mkdir -p "$(dir $(COLD_PATH))"
	@echo
	@echo "Thermocline listens on $(HOST):$(PORT), with $(MEMORY) MB of RAM; Ctrl-C stops it and keeps every item."
	@echo "Its file is $(COLD_PATH), of at most $(COLD_LIMIT)."
	@echo 'To try it, in another terminal with bash:'
	@echo
	@echo "  exec 3<>/dev/tcp/$(HOST)/$(PORT); printf 'set greeting 0 0 5\r\nhello\r\nget greeting\r\nquit\r\n' >&3; cat <&3"
	@echo
	@exec $(SERVER) -l $(HOST) -p $(PORT) -m $(MEMORY) --cold-path "$(COLD_PATH)" --cold-limit $(COLD_LIMIT) $(OPTIONS)

build: build-packages swift-present ## build the server in release mode: .build/release/thermocline
	$(SWIFT) build $(RELEASE)

test: lint build unit integration ## run every test, in their quick form

unit: build-packages swift-present ## run the Swift tests
	$(SWIFT) test $(IMPORT_CHECK) $(SWIFT_TEST_OPTIONS)

integration: build test-packages $(VENV)/installed ## run the tests that talk to a running server
	$(VENV)/bin/pytest $(PYTEST_FILES)

soak: soak-load soak-tests ## a mixed load over restarts, full disks, reloads and storms, with a report (SOAK_MINUTES=, SOAK_SEED=, SOAK_RATE=); then the long form of the tests

soak-load: build test-packages $(VENV)/installed
	cd Tests/Integration && ../../$(VENV)/bin/python -m soak --minutes $(SOAK_MINUTES) --seed $(SOAK_SEED) \
	  --rate $(SOAK_RATE) --report $(abspath $(SOAK_REPORT))

soak-tests: build test-packages $(VENV)/installed
	LONG_TESTS=1 $(SWIFT) test $(IMPORT_CHECK) --filter 'SystemCallTests|EventModelTests|DamageTests|ColdBoundsTests|SlowDiskServingTests'
	LONG_TESTS=1 $(VENV)/bin/pytest Tests/Integration
	@if [[ $$EUID == 0 ]]; then $(MAKE) fresh FRESH_TESTS=none; else echo "make fresh is left out: it needs root"; fi

clients: build test-packages client-packages $(VENV)/installed ## run every client library and example, also those of PHP, Ruby, Perl and Go; prints a table
	CLIENTS=all $(VENV)/bin/pytest $(addprefix Tests/Integration/test_, clients.py pymemcache.py django_cache.py django.py \
	  libmemcached_tools.py programs.py own_suites.py examples.py many_machines.py)

bench: build test-packages ## compare with memcached side by side: rates and processor time, items that fit, misses, memory, expiry, large values, advice (MEMCACHED=)
	.build/release/Benchmarks compare --memcached $(MEMCACHED)
	.build/release/Benchmarks room --memcached $(MEMCACHED)
	.build/release/Benchmarks hit-ratio --memcached $(MEMCACHED)
	.build/release/Benchmarks memory --memcached $(MEMCACHED)
	.build/release/Benchmarks expiry --memcached $(MEMCACHED)
	.build/release/Benchmarks large --memcached $(MEMCACHED)
	.build/release/Benchmarks advice
	.build/release/Benchmarks cold

deb: build deb-packages ## build a Debian package in .build/deb, with unit, man page and completions
	@# A tool of the argument parser's package, which reads the program's own description of its options.
	$(SWIFT) build --package-path .build/checkouts/swift-argument-parser --scratch-path .build-manual --product generate-manual
	scripts/build-deb $(SERVER) .build-manual/debug/generate-manual .build/deb

deb-packages:
ifneq ($(APT),no)
	@scripts/install-packages "build a Debian package" $(DEB_PACKAGES)
endif

fresh: swift-present ## the README's commands, the package and the Dockerfile's steps on empty Debian systems; root, an hour (FRESH_TESTS=short)
ifneq ($(APT),no)
	@scripts/install-packages "make empty systems" $(FRESH_PACKAGES)
endif
	/usr/bin/python3 Tests/Fresh/fresh.py --tests $(FRESH_TESTS) $(FRESH_OPTIONS)

fuzz: build-packages swift-present ## try inputs by the 100,000 on parsers, settings, a whole server, a damaged file (FUZZ_RUNS=, FUZZ_SERVER_RUNS=, FUZZ_CONFIG_RUNS=, FUZZ_FILE_RUNS=, FUZZ_SEED=)
	@for product in ProtocolFuzz ServerFuzz ConfigFuzz FileFuzz; do \
	  THERMOCLINE_FUZZ=1 $(SWIFT) build $(FUZZ_BUILD_FLAGS) --product $$product; \
	done
	@mkdir -p $(FUZZ_BUILD)/found/{text,binary,server-text,server-binary,config,file}
	@for protocol in text binary; do \
	  echo "The parsers of the $$protocol protocol: $(FUZZ_RUNS) inputs"; \
	  $(FUZZ) $(FUZZ_BUILD)/release/ProtocolFuzz -runs=$(FUZZ_RUNS) $(FUZZ_OPTIONS) -dict=Tests/Fuzz/$$protocol.dict \
	    $(FUZZ_BUILD)/found/$$protocol Tests/Fuzz/corpus/$$protocol; \
	  echo "A whole server, the $$protocol protocol: $(FUZZ_SERVER_RUNS) inputs"; \
	  $(FUZZ) $(FUZZ_BUILD)/release/ServerFuzz -runs=$(FUZZ_SERVER_RUNS) $(FUZZ_OPTIONS) -dict=Tests/Fuzz/$$protocol.dict \
	    $(FUZZ_BUILD)/found/server-$$protocol Tests/Fuzz/corpus/$$protocol; \
	done
	@echo "Config files, command lines and environments: $(FUZZ_CONFIG_RUNS) inputs"
	$(FUZZ) $(FUZZ_BUILD)/release/ConfigFuzz -runs=$(FUZZ_CONFIG_RUNS) $(FUZZ_OPTIONS) -dict=Tests/Fuzz/config.dict \
	  $(FUZZ_BUILD)/found/config Tests/Fuzz/corpus/config
	@echo "Files of the cold tier that are damaged: $(FUZZ_FILE_RUNS) of them"
	$(FUZZ) $(FUZZ_BUILD)/release/FileFuzz -runs=$(FUZZ_FILE_RUNS) $(FUZZ_OPTIONS) -max_len=200 \
	  $(FUZZ_BUILD)/found/file Tests/Fuzz/corpus/file

sanitize: sanitize-address sanitize-thread ## run the tests with the address sanitizer, and those that use threads with the thread sanitizer

sanitize-address: build-packages test-packages swift-present $(VENV)/installed
	$(SWIFT) build --build-tests $(ASAN_FLAGS)
	$(ASAN) $(SWIFT) test --no-parallel --skip-build $(ASAN_FLAGS)
	$(ASAN) THERMOCLINE=$(ASAN_BUILD)/debug/thermocline $(VENV)/bin/pytest $(ASAN_LEAVES_OUT) $(addprefix Tests/Integration/test_, \
	  classic_text.py meta.py binary.py hostile.py administration.py concurrency.py load.py)

# The models, the invariants and the parsers have one thread.
sanitize-thread: build-packages test-packages swift-present $(VENV)/installed
	$(SWIFT) build --build-tests $(TSAN_FLAGS)
	$(TSAN) $(SWIFT) test --no-parallel --skip-build $(TSAN_FLAGS) --skip ModelTests --skip InvariantTests --skip MemcachedProtocolTests
	$(TSAN) THERMOCLINE=$(TSAN_BUILD)/debug/thermocline $(VENV)/bin/pytest $(addprefix Tests/Integration/test_, \
	  concurrency.py load.py clients.py administration.py)

lint: build-packages swift-present ## check the format of the Swift sources
	$(SWIFT) format lint --strict --recursive $(SWIFT_SOURCES)

format: build-packages swift-present ## format the Swift sources
	$(SWIFT) format --in-place --recursive $(SWIFT_SOURCES)

clean: ## remove what was built; var/ with the items stays
	rm -rf .build $(FUZZ_BUILD) $(ASAN_BUILD) $(TSAN_BUILD) .build-manual $(VENV)

swift-present:
	@command -v $(firstword $(SWIFT)) >/dev/null || { \
	  echo "thermocline: no 'swift' in PATH; install a Swift toolchain, 6.2 or later, from https://www.swift.org/install/linux/" >&2; \
	  exit 1; }

build-packages:
ifneq ($(APT),no)
	@scripts/install-packages "build the server" $(BUILD_PACKAGES)
endif

test-packages:
ifneq ($(APT),no)
	@scripts/install-packages "run the tests" $(TEST_PACKAGES)
endif

client-packages:
ifneq ($(APT),no)
	@scripts/install-packages "run all clients" $(CLIENT_PACKAGES)
endif

# Debian's own python3, since that is the one python3-venv belongs to.
$(VENV)/installed: $(REQUIREMENTS) | test-packages
	@echo "Installing Python packages into $(VENV): $$(grep -v '^#' $(REQUIREMENTS) | tr '\n' ' ')"
	/usr/bin/python3 -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $(REQUIREMENTS)
	touch $@
