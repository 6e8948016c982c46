@testable import ImgTool
import QAPIRuntime
import Testing

// The expected texts were printed by qemu-img 10.0.2 for images with these properties.

@Suite("what info and check print")
struct TextTests {
    private static func overlay() -> ImageInfo {
        var file = ImageInfo(filename: "dir/c.qcow2", format: "file", isProtocol: true, virtualSize: 197_120, actualSize: 200_704)
        file.isDirty = false
        file.formatSpecific = JSONObject()
        var image = ImageInfo(filename: "dir/c.qcow2", format: "qcow2", isProtocol: false, virtualSize: 10 << 20, actualSize: 200_704)
        image.clusterSize = 65536
        image.isDirty = true
        image.backing = .init(name: "b.qcow2", fullName: "dir/b.qcow2", format: "qcow2")
        image.snapshots = [
            SnapshotInfo(
                id: "1", name: "snap1", stateSize: 0, dateSeconds: 1_795_366_355, dateNanoseconds: 23_216_000, clockNanoseconds: 0, instructionCount: 0)
        ]
        let specific: JSONValue = [
            "compat": "1.1", "lazy-refcounts": false, "bitmaps": [["flags": ["auto"], "name": "bm0", "granularity": 65536]],
            "refcount-bits": 16,
        ]
        image.formatSpecific = specific.object
        image.children = [.init(name: "file", info: file)]
        return image
    }

    @Test("an image with everything, for people")
    func text() {
        #expect(
            Self.overlay().text() == """
                image: dir/c.qcow2
                file format: qcow2
                virtual size: 10 MiB (10485760 bytes)
                disk size: 196 KiB
                cluster_size: 65536
                cleanly shut down: no
                backing file: b.qcow2 (actual path: dir/b.qcow2)
                backing file format: qcow2
                Snapshot list:
                ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT
                1       snap1                 0 B 2026-11-22 16:52:35  0000:00:00.000          0
                Format specific information:
                    compat: 1.1
                    lazy refcounts: false
                    bitmaps:
                        [0]:
                            flags:
                                [0]: auto
                            name: bm0
                            granularity: 65536
                    refcount bits: 16
                Child node '/file':
                    filename: dir/c.qcow2
                    protocol type: file
                    file length: 192 KiB (197120 bytes)
                    disk size: 196 KiB

                """)
    }

    @Test("the same for programs, member for member")
    func json() throws {
        let json = Self.overlay().json
        #expect(
            json.object?.members.map(\.key) == [
                "children", "backing-filename-format", "snapshots", "virtual-size", "filename", "cluster-size", "format", "actual-size",
                "format-specific", "full-backing-filename", "backing-filename", "dirty-flag",
            ])
        #expect(
            try #require(json["snapshots"]?[0]).text() == """
                {"icount": 0, "vm-clock-nsec": 0, "name": "snap1", "date-sec": 1795366355, "date-nsec": 23216000, "vm-clock-sec": 0, "id": "1", "vm-state-size": 0}
                """)
    }

    @Test("a check's findings decide text, members and status")
    func check() {
        var summary = CheckSummary(filename: "lk.qcow2", format: "qcow2")
        summary.imageEndOffset = 1_441_792
        summary.totalClusters = 1024
        summary.allocatedClusters = 16
        #expect(summary.status == 0)
        #expect(
            summary.text == """
                No errors were found on the image.
                16/1024 = 1.56% allocated, 0.00% fragmented, 0.00% compressed clusters
                Image end offset: 1441792

                """)
        summary.leaks = 2
        #expect(summary.status == 3)
        summary.corruptions = 1
        #expect(summary.status == 2)
        #expect(
            summary.text == """

                1 errors were found on the image.
                Data may be corrupted, or further writes to the image may corrupt it.

                2 leaked clusters were found on the image.
                This means waste of disk space, but no harm to data.
                16/1024 = 1.56% allocated, 0.00% fragmented, 0.00% compressed clusters
                Image end offset: 1441792

                """)
        #expect(
            summary.json.object?.members.map(\.key) == [
                "image-end-offset", "total-clusters", "corruptions", "check-errors", "leaks", "allocated-clusters", "filename", "format",
            ])
        summary.checkErrors = 1
        #expect(summary.status == 1)
    }

    @Test("moments become calendar dates", arguments: [
        (0, "1970-01-01 00:00:00"), (1_795_366_355, "2026-11-22 16:52:35"), (951_782_400, "2000-02-29 00:00:00"),
        (4_107_542_399, "2100-02-28 23:59:59"), (4_107_542_400, "2100-03-01 00:00:00"), (-1, "1969-12-31 23:59:59"),
    ])
    func dates(seconds: Int, text: String) {
        #expect(CalendarTime(secondsSince1970: seconds).text == text)
    }

    @Test("bench's lines")
    func bench() {
        var plan = BenchPlan()
        plan.step = 4096
        #expect(plan.announcement == "Sending 75000 read requests, 4096 bytes each, 64 in parallel (starting at offset 0, step size 4096)\n")
        plan.isWrite = true
        plan.flushInterval = 100
        #expect(
            plan.announcement
                == "Sending 75000 write requests, 4096 bytes each, 64 in parallel (starting at offset 0, step size 4096)\nSending flush every 100 requests\n")
        #expect(BenchPlan.result(seconds: 1.0064) == "Run completed in 1.006 seconds.\n")
    }
}
