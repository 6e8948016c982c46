import BasicDrivers
import BlockEncryption
import BlockFilters
package import BlockGraph
import CopyFilters
import NBDClient
import QCOW2
import ReadOnlyFormats
import TestDrivers

/// The drivers of this build: the one list that a new driver is added to.
package enum DriverCatalog {
    package static let registry = DriverRegistry([
        BlkdebugDriver.self,
        BlklogwritesDriver.self,
        BlkverifyDriver.self,
        CompressDriver.self,
        CopyBeforeWriteDriver.self,
        CopyOnReadDriver.self,
        FileDriver.self,
        HostDeviceDriver.self,
        LUKSDriver.self,
        NBDDriver.self,
        NullAIODriver.self,
        NullDriver.self,
        PreallocateDriver.self,
        QCOW2Driver.self,
        QuorumDriver.self,
        RawDriver.self,
        SnapshotAccessDriver.self,
        ThrottleDriver.self,
        VDIDriver.self,
        VHDXDriver.self,
        VMDKDriver.self,
        VPCDriver.self,
    ])
}
