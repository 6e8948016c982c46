import QAPISchema
