-- strings.lua: builds a report page out of small strings.
--
-- Stands for templating and text output: concatenation in steps, format,
-- gsub with a function, table.concat, padding. A unit returns the length of
-- the page and a sum over its bytes.

local ROWS = 3600

local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }

local function escape(text)
    return (text:gsub("[&<>]", ESCAPES))
end

local function title(word)
    return word:sub(1, 1):upper() .. word:sub(2)
end

-- "12345" -> "12,345"
local function grouped(number)
    local digits = tostring(number)
    local out = ""
    while #digits > 3 do
        out = "," .. digits:sub(-3) .. out
        digits = digits:sub(1, -4)
    end
    return digits .. out
end

local function name_of(number)
    local name = ""
    repeat
        name = string.char(97 + number % 26) .. name
        number = number // 26
    until number == 0
    return name
end

local function row(i)
    local name = title("item-" .. name_of(i * 7919))
    local note = "a<" .. i .. "> & b" .. ("."):rep(i % 17)
    local cells = {
        string.format("%05d", i),
        escape(name),
        grouped(i * i * 31),
        escape(note),
        string.format("%.2f %%", (i * 37 % 1000) / 10),
    }
    local line = "<tr>"
    for _, cell in ipairs(cells) do
        line = line .. "<td>" .. cell .. "</td>"
    end
    return line .. "</tr>"
end

local function checksum(text)
    local sum = #text
    for i = 1, #text, 251 do
        sum = (sum * 31 + text:byte(i)) % 1000000007
    end
    return sum
end

local function page(first)
    local lines = { "<table>" }
    for i = first, first + ROWS - 1 do
        lines[#lines + 1] = row(i)
    end
    lines[#lines + 1] = "</table>"
    return table.concat(lines, "\n")
end

-- Splits the page again and counts the cells of each length.
local function lengths(text)
    local seen = {}
    for cell in text:gmatch("<td>(.-)</td>") do
        seen[#cell] = (seen[#cell] or 0) + 1
    end
    local sum = 0
    for length, times in pairs(seen) do
        sum = sum + length * times * times
    end
    return sum
end

local turn = 0

return function()
    turn = turn % 8 + 1
    local text = page(turn * 4000)
    return checksum(text) * 1000 + lengths(text) % 1000
end
