import QAPIRuntime

// The JSON of `info --output=json`: members in the order in which qemu-img prints them, so that outputs can be compared as text.

extension ImageInfo {
    var json: JSONValue {
        var object = JSONObject()
        object["children"] = .array(
            children.map { child in
                var object = JSONObject()
                object["name"] = .string(child.name)
                object["info"] = child.info.json
                return .object(object)
            })
        object["backing-filename-format"] = backing?.format.map(JSONValue.string)
        if !snapshots.isEmpty { object["snapshots"] = .array(snapshots.map(\.json)) }
        object["virtual-size"] = .integer(virtualSize)
        object["filename"] = .string(filename)
        object["cluster-size"] = clusterSize.map(JSONValue.integer)
        object["format"] = .string(format)
        object["actual-size"] = actualSize.map(JSONValue.integer)
        if let formatSpecific {
            var specific = JSONObject()
            specific["type"] = .string(format)
            specific["data"] = .object(formatSpecific)
            object["format-specific"] = .object(specific)
        }
        object["full-backing-filename"] = backing?.fullName.map(JSONValue.string)
        object["encrypted"] = isEncrypted ? true : nil
        object["backing-filename"] = (backing?.name).map(JSONValue.string)
        object["dirty-flag"] = isDirty.map(JSONValue.bool)
        return .object(object)
    }
}

extension SnapshotInfo {
    var json: JSONValue {
        var object = JSONObject()
        object["icount"] = instructionCount.map(JSONValue.integer)
        object["vm-clock-nsec"] = .integer(clockNanoseconds % 1_000_000_000)
        object["name"] = .string(name)
        object["date-sec"] = .integer(dateSeconds)
        object["date-nsec"] = .integer(dateNanoseconds)
        object["vm-clock-sec"] = .integer(clockNanoseconds / 1_000_000_000)
        object["id"] = .string(id)
        object["vm-state-size"] = .integer(stateSize)
        return .object(object)
    }
}
