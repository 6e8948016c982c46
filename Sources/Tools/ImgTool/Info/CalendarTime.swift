/// A moment as a date and a time of day, in UTC.
struct CalendarTime: Equatable {
    let year, month, day, hour, minute, second: Int

    /// - Parameter seconds: since the start of 1970, UTC; may be negative.
    init(secondsSince1970 seconds: Int) {
        let dayNumber = seconds.dividedRoundingDown(by: 86400)
        let rest = seconds - dayNumber * 86400
        (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60)
        // Years are counted from March here, so that the leap day is a year's last and months have a regular pattern.
        let fromMarch0 = dayNumber + 719_468
        let era = fromMarch0.dividedRoundingDown(by: 146_097)
        let dayOfEra = fromMarch0 - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    }

    /// `2026-11-22 16:52:35`
    var text: String {
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(year)-\(two(month))-\(two(day)) \(two(hour)):\(two(minute)):\(two(second))"
    }
}

extension Int {
    /// Division that rounds towards minus infinity.
    fileprivate func dividedRoundingDown(by divisor: Int) -> Int { self / divisor - (self % divisor < 0 ? 1 : 0) }
}
