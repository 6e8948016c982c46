import NBDServer
import Testing

@Suite("looking for the next request")
struct SpinPolicyTests {
    @Test("a client that answers quickly is looked for, from its second request on")
    func quickClient() {
        var policy = SpinPolicy()
        policy.wokenBySocket(now: 1_000_000)
        var looks = policy.turnIsOver(isSingle: true, now: 1_000_000)
        #expect(!looks)
        policy.wokenBySocket(now: 1_030_000)
        looks = policy.turnIsOver(isSingle: true, now: 1_031_000)
        #expect(looks)
        for round in 0..<100 {
            policy.foundBySpinning()
            looks = policy.turnIsOver(isSingle: true, now: 1_060_000 + Int64(round) * 30_000)
            #expect(looks)
        }
    }

    @Test("a slow client is looked for three times in vain and then no more")
    func slowClient() {
        var policy = SpinPolicy()
        var now: Int64 = 1_000_000
        var looked = 0
        policy.wokenBySocket(now: now)
        _ = policy.turnIsOver(isSingle: true, now: now)
        policy.wokenBySocket(now: now + 20_000)
        now += 20_000
        for _ in 0..<100 {
            if policy.turnIsOver(isSingle: true, now: now) { looked += 1 }
            now += 1_000_000
            policy.wokenBySocket(now: now)
        }
        #expect(looked == 3)
    }

    @Test("a client that sends many requests at a time is not looked for")
    func batches() {
        var policy = SpinPolicy()
        policy.foundBySpinning()
        let looks = policy.turnIsOver(isSingle: false, now: 5)
        #expect(!looks)
    }
}
