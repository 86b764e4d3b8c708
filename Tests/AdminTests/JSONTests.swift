import Testing

@testable import Admin

@Suite("JSON as it is sent") struct JSONTests {
  private func text(_ json: JSON) -> String { String(decoding: json.bytes, as: UTF8.self) }

  @Test("Each kind of value is as the standard has it") func kinds() {
    #expect(
      text(.object([("a", .list([.number(1), .number(2.5), JSON(nil as Double?)])), ("b", true)]))
        == #"{"a":[1,2.5,null],"b":true}"#)
    #expect(text(.list([])) == "[]")
    #expect(text(.object([])) == "{}")
  }

  @Test("Texts can't break out of their quotes") func texts() {
    #expect(text(.text("a\"b\\c\u{1}\n</script>ü")) == "\"a\\\"b\\\\c\\u0001\\u000a</script>ü\"")
  }

  @Test("What is no number is null") func noNumber() {
    #expect(text(.number(.nan)) == "null")
    #expect(text(.number(.infinity)) == "null")
  }
}
