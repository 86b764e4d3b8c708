# Ruby's Dalli. What this prints and awaits: ../programs.py
require "dalli"
require "logger"
require "openssl"

ADDRESS, PROTOCOL, LARGE, AUTHORITY = ARGV
EVERY_BYTE = (0..255).map(&:chr).join.b + "\r\nEND\r\n".b
$stdout.sync = true
Dalli.logger = Logger.new($stderr, level: Logger::ERROR)

def ask(what)
  puts what
  abort "the harness is gone" unless $stdin.gets == "done\n"
end

def settle = ask("settle")

# A test: it passes if its block gives something true and raises nothing.
def check(name)
  passed = yield
  puts "#{passed ? "ok" : "not ok"} #{name}"
rescue StandardError => error
  puts "not ok #{name}: #{error.class}: #{error.message[0, 200].inspect}"
end

def eventually
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 8
  loop do
    result = yield
    return true if result
    return false if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    sleep 0.05
  end
end

# 3.0.6 reads many at once only without TLS: its sockets of TLS do not know their server.
def many_of(client, keys)
  return client.get_multi(*keys) unless AUTHORITY && Dalli::VERSION < "3.2"
  keys.to_h { |key| [key, client.get(key)] }.compact
end

options = { value_max_bytes: 2 * 1024 * 1024, socket_timeout: 20, down_retry_delay: 0 }
if AUTHORITY
  context = OpenSSL::SSL::SSLContext.new
  context.ca_file = AUTHORITY
  context.verify_mode = OpenSSL::SSL::VERIFY_PEER
  options[:ssl_context] = context
end
options[:protocol] = PROTOCOL.to_sym if Dalli::VERSION >= "3.2"
client = Dalli::Client.new(ADDRESS, options)
RAW = { raw: true }.freeze
puts "client Dalli #{Dalli::VERSION}"

check("text, numbers, objects, nothing") do
  values = { "text" => "value", "number" => 42, "object" => { "list" => [1, 2.5, nil], sym: "\u00fc" }, "empty" => "" }
  values.each { |key, value| client.set(key, value) }
  settle
  values.all? { |key, value| client.get(key) == value } && client.get("absent").nil?
end
check("every byte") do
  client.set("bytes", EVERY_BYTE, nil, RAW)
  settle
  client.get("bytes", RAW).b == EVERY_BYTE
end
check("keys of 250 bytes and of other letters") do
  keys = ["k" * 250, "\u00fc\u4e16"]
  keys.each { |key| client.set(key, key) }
  settle
  keys.all? { |key| client.get(key) == key }
end
check("a large value") do
  large = EVERY_BYTE * (LARGE.to_i / EVERY_BYTE.bytesize)
  client.set("large", large, nil, RAW)
  settle
  client.get("large", RAW).b == large
end
check("a compressed value") do
  client.set("compressed", "lake " * (LARGE.to_i / 5), nil, compress: true)
  settle
  client.get("compressed") == "lake " * (LARGE.to_i / 5)
end
check("many at once") do
  many = (0...200).to_h { |i| ["many#{i}", "value #{i}"] }
  client.multi { many.each { |key, value| client.set(key, value) } }
  settle
  many_of(client, [*many.keys, "absent"]) == many
end
check("many with their CAS") do
  found = AUTHORITY ? { "many1" => client.get_cas("many1"), "many2" => client.get_cas("many2") } : client.get_multi_cas("many1", "many2", "absent")
  found.keys.sort == %w[many1 many2] && found["many1"][0] == "value 1" && found.values.map(&:last).uniq.size == 2
end
check("add and replace") do
  settle
  client.replace("absent", "y")    # 3.0.6 says 0, which is true in Ruby
  !client.add("text", "x") && client.add("added", "x") && client.replace("added", "y") && client.get("added") == "y" &&
    client.get("absent").nil?
end
check("append and prepend") do
  client.set("joined", "b", nil, RAW)
  settle
  client.append("joined", "c")
  client.prepend("joined", "a")
  settle
  client.get("joined", RAW) == "abc" && !client.append("absent", "x")
end
check("cas") do
  settle
  first = client.cas("text") { |value| value + " more" }
  settle
  client.get("text") == "value more" && first && client.cas("absent") { raise "it is absent" }.nil?
end
check("cas over a change of somebody else") do
  settle
  lost = client.cas("text") { client.set("text", "theirs"); "mine" }
  !lost && client.get("text") == "theirs"
end
check("cas of a value that was read before") do
  value, cas = client.get_cas("text")
  settle
  value == "theirs" && client.set_cas("text", "new", cas) && !client.set_cas("text", "newer", cas) && client.get("text") == "new"
end
check("delete under a cas") do
  cas = client.get_cas("added").last
  settle
  !client.delete_cas("added", cas + 1_000_000) && client.delete_cas("added", cas) && client.get("added").nil?
end
check("counters") do
  client.incr("counter", 5, nil, 10)
  settle
  steps = [client.incr("counter", 5), client.decr("counter", 3), client.decr("counter", 100)]
  settle
  steps == [15, 12, 0] && client.incr("absent").nil? && client.get("counter", RAW).to_i == 0
end
check("delete") do
  settle
  client.delete("number") && !client.delete("number") && client.get("number").nil?
end
check("fetch computes once") do
  computed = 0
  2.times { client.fetch("fetched", 1000) { computed += 1; "result" }; settle }
  computed == 1 && client.get("fetched") == "result"
end
check("TTL, touch, get and touch") do
  client.set("short", "x", 1)
  client.set("touched", "x")
  client.set("gat", "x")
  client.set("kept", "x", 20)
  settle
  touched = client.touch("touched", 1) && client.gat("gat", 1) == "x" && client.touch("kept", 1000) && !client.touch("absent", 1)
  settle
  touched && eventually { many_of(client, %w[short touched gat]).empty? } && client.get("kept") == "x"
end
check("statistics and version") do
  client.stats.values.first["cmd_get"].to_i > 10 && client.version.values.first.start_with?("1.")
end
check("all is there again after a restart") do
  ask("restart")
  many = nil
  # Dalli raises, or answers with what it found, until it has noticed that the connection is another.
  eventually { (many = many_of(client, (0...200).map { |i| "many#{i}" })).size == 200 rescue false } &&
    many.all? { |key, value| value == "value #{key.delete("many")}" } && client.get("text") == "new" &&
    client.get("bytes", RAW).b == EVERY_BYTE
end
check("it is written to after a restart") do
  client.set("text", "after")
  settle
  client.get("text") == "after"
end
check("flush") do
  client.flush_all
  client.get("text").nil? && client.get("object").nil?
end
puts "end"
