-- ray.lua: a small ray tracer with a table for every vector.
--
-- Stands for numeric code in an object style: each operation on a vector
-- makes a table of three fields that dies at once. A unit draws one picture
-- and returns a sum over its pixels, rounded to whole numbers.

local WIDTH, HEIGHT = 100, 75

local Vector = {}
Vector.__index = Vector

local function vector(x, y, z)
    return setmetatable({ x = x, y = y, z = z }, Vector)
end

function Vector.__add(a, b)
    return vector(a.x + b.x, a.y + b.y, a.z + b.z)
end

function Vector.__sub(a, b)
    return vector(a.x - b.x, a.y - b.y, a.z - b.z)
end

function Vector.__mul(a, k)
    return vector(a.x * k, a.y * k, a.z * k)
end

function Vector:dot(b)
    return self.x * b.x + self.y * b.y + self.z * b.z
end

function Vector:unit()
    return self * (1 / math.sqrt(self:dot(self)))
end

function Vector:mirrored(normal)
    return self - normal * (2 * self:dot(normal))
end

local SKY = vector(0.4, 0.6, 0.9)
local LIGHT = vector(-3, 6, -4)

local spheres = {}
for i = 0, 6 do
    spheres[i + 1] = {
        centre = vector((i - 3) * 1.1, (i % 3) * 0.7 - 0.2, 3 + i % 2),
        radius = 0.45 + (i % 4) * 0.1,
        colour = vector(0.3 + 0.1 * i, 1 - 0.12 * i, 0.5),
        shine = (i % 3) * 0.3,
    }
end

-- The distance along the ray to the sphere, or nil.
local function distance(sphere, from, way)
    local to = sphere.centre - from
    local along = to:dot(way)
    local rest = to:dot(to) - along * along
    local inside = sphere.radius * sphere.radius - rest
    if inside < 0 then
        return nil
    end
    local near = along - math.sqrt(inside)
    return near > 1e-4 and near or nil
end

local function nearest(from, way)
    local best, found
    for _, sphere in ipairs(spheres) do
        local far = distance(sphere, from, way)
        if far and (not best or far < best) then
            best, found = far, sphere
        end
    end
    return found, best
end

local function trace(from, way, depth)
    local sphere, far = nearest(from, way)
    if not sphere then
        return SKY * (0.5 + 0.5 * way.y)
    end
    local point = from + way * far
    local normal = (point - sphere.centre):unit()
    local to_light = (LIGHT - point):unit()
    local bright = math.max(0, normal:dot(to_light))
    if nearest(point, to_light) then
        bright = bright * 0.3
    end
    local colour = sphere.colour * (0.15 + 0.85 * bright)
    if depth > 0 and sphere.shine > 0 then
        local back = trace(point, way:mirrored(normal), depth - 1)
        colour = colour * (1 - sphere.shine) + back * sphere.shine
    end
    return colour
end

local function level(value)
    return math.floor(math.min(1, math.max(0, value)) * 255)
end

return function()
    local sum, eye = 0, vector(0, 0.5, -3)
    for row = 0, HEIGHT - 1 do
        for column = 0, WIDTH - 1 do
            local x = (column - WIDTH / 2) / WIDTH * 2.4
            local y = (HEIGHT / 2 - row) / HEIGHT * 1.8
            local colour = trace(eye, vector(x, y, 2):unit(), 3)
            sum = (sum * 31 + level(colour.x) * 65536
                + level(colour.y) * 256 + level(colour.z)) % 4294967291
        end
    end
    return sum
end
