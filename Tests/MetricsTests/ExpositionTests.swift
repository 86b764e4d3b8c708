import Metrics
import Testing

@Suite struct ExpositionTests {
  @Test("A family has its help and type once, and a line for each sample") func familyHasHelpTypeOnce() {
    let family = MetricFamily(
      "things_total", .counter, "Things.", [MetricSample([("kind", "a")], 1), MetricSample([("kind", "b")], 2.5)])
    #expect(
      Exposition.text([family]) == """
        # HELP things_total Things.
        # TYPE things_total counter
        things_total{kind="a"} 1
        things_total{kind="b"} 2.5

        """)
  }

  @Test("A family without samples is left out") func familyWithoutSamplesLeftOut() {
    #expect(Exposition.text([MetricFamily("nothing", .gauge, "")]) == "")
  }

  @Test("Labels and help are escaped") func labelsHelpAreEscaped() {
    let family = MetricFamily("a", .gauge, "x\\y\nz\"", [MetricSample([("l", "q\"\\\n")], 0)])
    #expect(Exposition.text([family]) == "# HELP a x\\\\y\\nz\"\n# TYPE a gauge\na{l=\"q\\\"\\\\\\n\"} 0\n")
  }

  @Test("Buckets are cumulated and end with all there are") func bucketsAreCumulatedEndWith() {
    var histogram = LatencyHistogram()
    histogram.add(nanoseconds: 500, weight: 2)
    histogram.add(nanoseconds: 1500)
    histogram.add(nanoseconds: 90_000_000_000)
    let lines = Exposition.text([MetricFamily("t", .histogram, "", [MetricSample([("x", "y")], histogram)])])
      .split(separator: "\n").map(String.init)
    let buckets = lines.filter { $0.hasPrefix("t_bucket") }
    #expect(buckets.first == "t_bucket{x=\"y\",le=\"1.024e-06\"} 2")
    #expect(buckets[1] == "t_bucket{x=\"y\",le=\"2.048e-06\"} 3")
    #expect(buckets.last == "t_bucket{x=\"y\",le=\"+Inf\"} 4")
    #expect(lines.contains("t_count{x=\"y\"} 4"))
    let counts = buckets.map { Int($0.split(separator: " ").last!)! }
    #expect(counts == counts.sorted())
  }
}
