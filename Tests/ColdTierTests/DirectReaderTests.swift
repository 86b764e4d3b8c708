import Foundation
import Logging
import Testing

@testable import ColdTier

@Suite struct DirectReaderTests {
  @Test func theVersionOfAFileIsOddWhileNobodyKnowsWhetherItsPagesAreWhole() {
    let version = FileVersion()
    #expect(version.current & 1 == 1)
    version.noteWhole()
    let first = version.current
    #expect(first & 1 == 0)
    version.noteWhole()
    #expect(version.current == first)
    version.beginWriting()
    #expect(version.current & 1 == 1)
    // It failed, and is tried again.
    version.beginWriting()
    #expect(version.current & 1 == 1)
    version.noteWhole()
    #expect(version.current & 1 == 0)
    #expect(version.current > first)
  }
}
