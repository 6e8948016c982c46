import QAPIRuntime
import SampleSchema
import Testing

@Suite("Policy for deprecated and unstable parts")
struct CompatPolicyTests {
    private static let nothingOld: CompatPolicy = {
        var policy = CompatPolicy()
        policy.deprecatedInput = .reject
        policy.deprecatedOutput = .hide
        return policy
    }()
    private static let nothingNew: CompatPolicy = {
        var policy = CompatPolicy()
        policy.unstableInput = .reject
        policy.unstableOutput = .hide
        return policy
    }()
    private static let arguments: JSONValue = ["boards": [["length": 1, "width": 2, "grain": 0.5, "offcuts": [["length": 3, "width": 4]]]]]

    @Test("without a policy everything is accepted and told")
    func standard() async {
        #expect(await Workshop.run("hew-boards") == "{}")
        #expect(await Workshop.run("try-laser") == #"{"length": 900, "width": 4, "grain": 0.5}"#)
        #expect(
            await Workshop.run("saw-boards", Self.arguments)
                == #"[{"length": 1, "width": 2, "grain": 0.5, "offcuts": [{"length": 3, "width": 4}]}]"#)
    }

    @Test("a rejected command is as good as not there")
    func commands() async {
        #expect(await Workshop.run("hew-boards", [:], Self.nothingOld) == "CommandNotFound: Deprecated command hew-boards disabled by policy")
        #expect(await Workshop.run("try-laser", [:], Self.nothingNew) == "CommandNotFound: Unstable command try-laser disabled by policy")
        #expect(await Workshop.run("hew-boards", [:], Self.nothingNew) == "{}")
    }

    @Test("a rejected parameter is named by its path, at any depth")
    func parameters() async {
        #expect(
            await Workshop.run("saw-boards", Self.arguments, Self.nothingOld)
                == "GenericError: Deprecated parameter boards[0].width disabled by policy")
        #expect(
            await Workshop.run("saw-boards", Self.arguments, Self.nothingNew)
                == "GenericError: Unstable parameter boards[0].grain disabled by policy")
        #expect(
            await Workshop.run("saw-boards", ["boards": [], "hurry": false], Self.nothingNew)
                == "GenericError: Unstable parameter hurry disabled by policy")
        #expect(await Workshop.run("saw-boards", ["boards": [["length": 1]]], Self.nothingOld) == #"[{"length": 1}]"#)
    }

    @Test("a rejected value of an enumeration is named")
    func values() async {
        #expect(
            await Workshop.run("saw-boards", ["boards": [], "tool": "adze"], Self.nothingOld)
                == "GenericError: Deprecated value adze disabled by policy")
        #expect(
            await Workshop.run("saw-boards", ["boards": [], "tool": "laser"], Self.nothingNew)
                == "GenericError: Unstable value laser disabled by policy")
        #expect(await Workshop.run("saw-boards", ["boards": [], "tool": "adze"], Self.nothingNew) == "[]")
    }

    @Test("hidden members are left out of results and events, at any depth")
    func output() async throws {
        #expect(await Workshop.run("try-laser", [:], Self.nothingOld) == #"{"length": 900, "grain": 0.5}"#)
        let event = SawBluntEvent(board: Workshop.board)
        #expect(event.json(Self.nothingOld).text() == #"{"board": {"length": 900, "grain": 0.5}}"#)
        var neither = Self.nothingNew
        neither.deprecatedOutput = .hide
        #expect(event.json(neither).text() == #"{"board": {"length": 900}}"#)
    }

    @Test("an event knows its own features, so that its sender can hide it")
    func events() {
        #expect(Self.nothingOld.hides(SawBluntEvent.specialFeatures))
        #expect(!Self.nothingNew.hides(SawBluntEvent.specialFeatures))
        #expect(!Self.nothingOld.hides(JobDoneEvent.specialFeatures))
    }

    @Test("what the schema says about running a command is there at run time")
    func options() throws {
        let commands = Dictionary(uniqueKeysWithValues: SampleSchemaTable.commands(Workshop()).map { ($0.name, $0) })
        #expect(try #require(commands["do-job"]).options == [.outOfBand, .preconfig])
        #expect(try #require(commands["talk"]).options == [.coroutine, .silent, .untyped])
        #expect(try #require(commands["saw-boards"]).options == [])
        #expect(try #require(commands["try-laser"]).features == ["unstable", "smoky"])
        #expect(try #require(commands["query-orders"]).specialFeatures == .deprecated)
    }
}
