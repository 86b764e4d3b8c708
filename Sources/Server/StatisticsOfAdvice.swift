import Advice
import TieredCache

extension StatisticsReader {
  /// What more or less memory would bring, and from what that was learnt. Until enough is known, the latter alone.
  func advice(_ list: inout StatisticsList) {
    if let report = cache.advice(now: now) {
      list.add("memory", report.memory)
      list.add("hit_ratio", AdviceReport.ratio(report.hitRatio))
      for point in report.curve { list.add("hit_ratio_at:\(point.memory)", AdviceReport.ratio(point.hitRatio)) }
      for (number, sentence) in report.advice.enumerated() { list.add("advice:\(number + 1)", sentence) }
    }
    let sampling = cache.samplingStatistics
    list.add("sample_keys_per_million", Int((sampling.rate * 1e6).rounded()))
    list.add("sample_keys", sampling.keys)
    list.add("sample_reads", sampling.reads)
    list.add("sample_dropped", sampling.dropped)
    list.add("sample_bytes", sampling.bytes)
    list.add("sample_cpu_us", sampling.nanoseconds / 1000)
  }
}

extension ServerProbe {
  /// What is advised, as one JSON object (`AdviceReport.json`); nil as long as too little is known.
  package func adviceJSON() -> String? { reader.cache.advice(now: reader.now)?.json }
}
