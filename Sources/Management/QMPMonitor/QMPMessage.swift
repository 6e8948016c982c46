package import QAPIRuntime
package import StorageSchema
package import StrataBase

/// The messages that a monitor sends.
package enum QMPMessage {
    /// The first message of every conversation.
    package static func greeting(version: VersionInfo, capabilities: [QMPCapability]) -> JSONValue {
        ["QMP": ["version": version.json, "capabilities": capabilities.json]]
    }

    package static func success(_ value: JSONValue, id: JSONValue?) -> JSONValue {
        var message = JSONObject()
        message["return"] = value
        message["id"] = id
        return .object(message)
    }

    package static func failure(_ error: QMPError, id: JSONValue?) -> JSONValue {
        var message = JSONObject()
        message["id"] = id
        message["error"] = error.json
        return .object(message)
    }

    package static func event(_ event: some QAPIEvent, at time: WallClock, policy: CompatPolicy = CompatPolicy()) -> JSONValue {
        Self.event(named: type(of: event).eventName, event.json(policy), at: time)
    }

    private static func event(named name: String, _ data: JSONValue, at time: WallClock) -> JSONValue {
        var message = JSONObject()
        message["timestamp"] = ["seconds": .integer(time.seconds), "microseconds": .integer(time.nanoseconds / 1000)]
        message["event"] = .string(name)
        if data.object?.isEmpty == false { message["data"] = data }
        return .object(message)
    }
}
