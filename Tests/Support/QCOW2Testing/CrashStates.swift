package import StrataTesting
import Synchronization

extension CrashProof {
    /// What is wrong with a state, if anything.
    /// - Parameter models: what was durable, and what there was after every operation that had begun since.
    package static func judge(_ disk: [Int32], _ models: ArraySlice<Model>, _ contents: SectorContents, over backing: [Int32] = []) -> String? {
        let check: IndependentCheck
        do { check = try IndependentCheck(disk, contents, over: backing) } catch { return "\(error)" }
        guard models.contains(where: { $0.snapshots == check.snapshots }) else { return "the snapshots are \(check.snapshots.map(\.id))" }
        guard models.contains(where: { $0.sectors.count == check.guest.count }) else { return "the disk has \(check.guest.count) sectors" }
        for (sector, found) in check.guest.enumerated() {
            let isAllowed = models.contains { model in sector < model.sectors.count ? model.sectors[sector] == found : found == 0 }
            if !isAllowed { return "sector \(sector) has content \(found), allowed are \(models.map { sector < $0.sectors.count ? $0.sectors[sector] : 0 })" }
        }
        for bitmap in check.bitmaps where !bitmap.isInUse {
            guard let base = models.last?.bitmapBase else { return "a bitmap that nobody has added" }
            for (sector, found) in check.guest.enumerated() where found != (sector < base.count ? base[sector] : 0) {
                if sector >= bitmap.isDirty.count || !bitmap.isDirty[sector] { return "sector \(sector) differs from what it was when the bitmap was added, and is clean" }
            }
        }
        return nil
    }

    /// Crashes after every host operation of a history.
    /// - Returns: how many different states were judged.
    package static func crashEverywhere(
        _ start: Start, _ played: Played, _ contents: SectorContents, limit: Int, _ random: inout SeededGenerator
    ) throws -> Int {
        let models = models(start.model, played, contents)
        let backing = contents.numbers(of: start.backing)
        var disk = VolatileDisk(contents.numbers(of: start.disk))
        var seen: Set<Int> = []
        var flushes = 0
        var judged = 0
        for (number, event) in ([SectorEvent.flush] + SectorEvent.list(played.log, from: start.disk, contents)).enumerated() {
            disk.apply(event)
            if case .flush = event { flushes += 1 }
            // Host operations that have been carried out, without the flush in front.
            let point = number
            let durable = played.operations.indices.last { played.operations[$0].isDurable && played.spans[$0].end <= point }
            let base = durable.map { $0 + 1 } ?? 0
            let begun = played.operations.indices.last { played.spans[$0].start < point || played.spans[$0].end <= point }.map { $0 + 1 } ?? 0
            let allowed = models[base...max(base, begun)]
            try disk.forEachState(limit: limit, &random) { state, key in
                var hasher = Hasher()
                hasher.combine(flushes)
                hasher.combine(base)
                hasher.combine(key)
                guard seen.insert(hasher.finalize()).inserted else { return }
                judged += 1
                if let problem = judge(state, allowed, contents, over: backing) {
                    let current = played.spans.firstIndex { $0.end >= point } ?? played.operations.count
                    throw ToolFailure(
                        description: """
                            \(problem); crash behind host operation \(point) of \(played.log.count), in operation \(current) of \(played.operations.map(\.description)); \
                            the last host operations: \(played.log[max(0, point - 20)..<point].map(\.description)); changed sectors: \(key)
                            """)
                }
            }
        }
        return judged
    }

    // MARK: Searches

    /// Every history of three operations that begins with `first`.
    package static func judgeTriples(beginningWith first: Operation, _ kind: ImageKind = .sound) async throws -> (states: Int, histories: Int) {
        let contents = SectorContents()
        let start = try start(contents, kind)
        let histories = try await onContext { context in
            var histories: [Played] = []
            for second in alphabet {
                for third in alphabet {
                    let recorder = Recorder(disk: start.disk)
                    defer { recorder.forget() }
                    recorder.state.withLock { $0.isSlow = false }
                    histories.append(try await play([first, second, third], start, recorder, context, salt: 0))
                }
            }
            return histories
        }
        var random = SeededGenerator(seed: 1)
        var judged = 0
        for played in histories { judged += try crashEverywhere(start, played, contents, limit: 64, &random) }
        return (judged, histories.count)
    }

    /// A long history by seed.
    /// - Parameter limit: how many states are judged at one point where there are more.
    package static func judgeRandomHistory(seed: UInt64, limit: Int) async throws -> Int {
        let contents = SectorContents()
        let start = try start(contents, [.sound, .overlay, .sound, .dirty, .subclusters, .overlay, .overlay, .sound][Int(seed % 8)])
        var random = SeededGenerator(seed: seed)
        let operations = (0..<40).map { _ in randomOperation(&random) }
        // Every fourth one has a call that fails once; the guest does again what failed.
        let fault = seed % 4 == 2 ? Fault.allCases.randomElement(using: &random) : nil
        let failAt = Int.random(in: 1...400, using: &random)
        let played: Played? = try await onContext { context in
            let recorder = Recorder(disk: start.disk)
            defer { recorder.forget() }
            recorder.state.withLock { state in
                state.isSlow = seed % 2 == 0
                guard let fault else { return }
                (state.failAt, state.failure, state.failsHalfway) = (failAt, fault.error, fault == .short)
            }
            do { return try await play(operations, start, recorder, context, salt: UInt8(truncatingIfNeeded: seed &* 8), retries: fault != nil) } catch {
                // Opening and closing are done once; `FaultTests` looks at what they leave.
                if fault != nil, "\(error)".contains("injected failure") { return nil }
                throw error
            }
        }
        guard let played else { return 0 }
        do { return try crashEverywhere(start, played, contents, limit: limit, &random) } catch {
            let injected = fault.map { ", call \(failAt) fails with \($0)" } ?? ""
            throw ToolFailure(description: "STRATA_CRASH_SEED=\(seed)\(injected): \(error)")
        }
    }
}
