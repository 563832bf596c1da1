-- Lua compares strings by the server's locale, in which bytes have no order. So values are compared
-- as numbers, which are exact below 2**53.
local function to_number(text) return (struct.unpack('>I8', text)) end
