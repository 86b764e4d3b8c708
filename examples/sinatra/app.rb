# A page that takes long and a session, both kept by Dalli. CACHE_LOCATION: HOST:PORT of the cache server.
require "dalli"
require "rack/session/dalli"
require "sinatra"

CACHE_LOCATION = ENV.fetch("CACHE_LOCATION", "127.0.0.1:11211")
CACHE = Dalli::Client.new(CACHE_LOCATION, namespace: "lake", expires_in: 900)

use Rack::Session::Dalli, memcache_server: CACHE_LOCATION, namespace: "session", expire_after: 30 * 24 * 3600

# The temperature of the lake at each metre of depth: what takes long to find out.
def temperatures(year)
  middle = 10 + year % 5
  (0...30).map { |depth| (4 + 16 / (1 + Math.exp(depth - middle))).round(1) }
end

def report(year)
  CACHE.fetch("report:#{year}") do
    warn "computing the report for #{year}"
    rows = temperatures(year).each_with_index.map { |value, depth| "<tr><td>#{depth} m<td>#{value} &deg;C" }
    "<h1>The lake in #{year}</h1><p>Computed at #{Time.now.utc.strftime("%FT%T.%6N")}.<table>#{rows.join}</table>"
  end
end

get "/visits" do
  session[:visits] = session.fetch(:visits, 0) + 1
  "Your visit number #{session[:visits]}"
end

get "/:year" do |year|
  pass unless year.match?(/\A\d{4}\z/)
  report(year.to_i)
end

get("/") { report(2026) }
