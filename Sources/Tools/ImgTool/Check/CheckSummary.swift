import QAPIRuntime

/// What `check` found, and how it is told.
struct CheckSummary {
    var filename: String
    var format: String
    /// Problems that kept the check itself from looking at something.
    var checkErrors = 0
    /// Bytes from the start of the file to the end of what is in use; 0 when unknown.
    var imageEndOffset = 0
    var corruptions = 0
    var leaks = 0
    var corruptionsFixed = 0
    var leaksFixed = 0
    /// Guest clusters: all, those with data, those not where a sequential read expects them, compressed ones.
    var totalClusters = 0
    var allocatedClusters = 0
    var fragmentedClusters = 0
    var compressedClusters = 0

    /// 0 clean, 1 the check could not be completed, 2 corrupt, 3 leaks only.
    var status: Int32 {
        if checkErrors > 0 { return 1 }
        if corruptions > 0 { return 2 }
        return leaks > 0 ? 3 : 0
    }

    /// Members that are zero are left out, except the two that scripts rely on.
    var json: JSONValue {
        var object = JSONObject()
        func count(_ key: String, _ value: Int) { if value != 0 { object[key] = .integer(value) } }
        count("image-end-offset", imageEndOffset)
        count("compressed-clusters", compressedClusters)
        count("total-clusters", totalClusters)
        count("corruptions", corruptions)
        count("corruptions-fixed", corruptionsFixed)
        object["check-errors"] = .integer(checkErrors)
        count("leaks", leaks)
        count("leaks-fixed", leaksFixed)
        count("allocated-clusters", allocatedClusters)
        object["filename"] = .string(filename)
        object["format"] = .string(format)
        count("fragmented-clusters", fragmentedClusters)
        return .object(object)
    }

    var text: String {
        var text = ""
        if corruptions == 0 && leaks == 0 && checkErrors == 0 {
            text += "No errors were found on the image.\n"
        } else {
            if corruptions > 0 {
                text += "\n\(corruptions) errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n"
            }
            if leaks > 0 {
                text += "\n\(leaks) leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n"
            }
            if checkErrors > 0 { text += "\n\(checkErrors) internal errors have occurred during the check.\n" }
        }
        if totalClusters != 0 && allocatedClusters != 0 {
            text += "\(allocatedClusters)/\(totalClusters) = \(Self.percent(allocatedClusters, of: totalClusters)) allocated, "
            text += "\(Self.percent(fragmentedClusters, of: allocatedClusters)) fragmented, "
            text += "\(Self.percent(compressedClusters, of: allocatedClusters)) compressed clusters\n"
        }
        if imageEndOffset > 0 { text += "Image end offset: \(imageEndOffset)\n" }
        return text
    }

    /// `12.50%`
    private static func percent(_ part: Int, of whole: Int) -> String {
        let hundredths = Int((Double(part) * 10000 / Double(whole)).rounded(.toNearestOrEven))
        let rest = hundredths % 100
        return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)%"
    }
}
