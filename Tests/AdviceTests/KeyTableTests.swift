import Testing

@testable import Advice

@Suite("The table of sampled keys")
struct KeyTableTests {
  @Test("It agrees with a dictionary while keys come and go", arguments: [1, 2, 3])
  func model(seed: UInt64) {
    var random = Seeded(state: seed)
    var table = KeyTable(capacity: 100)
    var model: [UInt64: UInt16] = [:]
    for _ in 0..<20_000 {
      let hash = hash(Int.random(in: 0..<300, using: &random))
      let key = table.find(hash)
      #expect(key == model[hash] ?? KeyTable.none)
      if key == KeyTable.none {
        if table.isFull { continue }
        let number = table.insert(hash)
        table.setHeld(number, by: 3)
        model[hash] = number
      } else if Bool.random(using: &random) {
        table.remove(key)
        model[hash] = nil
      }
      #expect(table.count == model.count)
    }
    #expect(Set(model.values).count == model.count)
    var met: Set<UInt16> = []
    table.visit { table, key in
      #expect(model[table.hash(key)] == key)
      met.insert(key)
    }
    #expect(met.count == model.count)
  }

  @Test("It remembers who holds a key, its size, and whether it was missed")
  func fields() {
    var table = KeyTable(capacity: 4)
    let key = table.insert(7)
    table.setBytes(1001, of: key)
    #expect(table.bytes(key) == 1004)
    table.setHeld(key, by: 0)
    table.setHeld(key, by: 6)
    table.setNotHeld(key, by: 0)
    #expect(table.isHeld(key, by: 0) == false)
    #expect(table.isHeld(key, by: 6) == true)
    #expect(table.isHeld(key) == true)
    #expect(table.wasMissed(key) == false)
    table.setMissed(true, of: key)
    #expect(table.wasMissed(key) == true)
    table.removeAll()
    #expect(table.find(7) == KeyTable.none && table.count == 0)
  }
}
