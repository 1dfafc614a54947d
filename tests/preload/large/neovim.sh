#!/bin/bash
# neovim - Neovim: Lua, Vim script, buffers, undo, regular expressions, its event
# loop, jobs; files are the same.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >program.lua <<'CODE'
local out = {}
local function say(...) out[#out + 1] = table.concat(vim.tbl_map(tostring, { ... }), ' ') end
local lines, seed = {}, 42
for i = 1, 20000 do
  seed = (seed * 1103515 + 12345) % 2147483648
  lines[i] = string.format('%05d %x', seed % 100000, i * 31)
end
vim.api.nvim_buf_set_lines(0, 0, -1, false, lines)
local hash = function()
  return vim.fn.sha256(table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\n'))
end
say('start', hash())
vim.cmd('sort n')
say('sorted', hash())
vim.cmd([[%s/\v([a-f])(\d)/\2\1/ge]])
say('replaced', hash())
vim.cmd([[g/^\d*7 /m0]])
say('moved', hash())
vim.cmd('normal! ggVGJu')
say('joined and undone', hash())
for _ = 1, 3 do vim.cmd('undo') end
say('undone', hash())
for _ = 1, 3 do vim.cmd('redo') end
say('redone', hash())
vim.cmd('write! result.txt')
vim.bo.filetype = 'c'
vim.cmd('syntax on | redraw')
local t = {}
for i = 1, 100000 do t['k' .. i % 5000] = (t['k' .. i % 5000] or '') .. i % 10 end
local keys = vim.tbl_keys(t)
table.sort(keys)
say(#keys, vim.fn.sha256(table.concat(vim.tbl_map(function(k) return t[k] end, keys), ',')))
say(vim.fn.sha256(vim.json.encode(vim.json.decode(vim.json.encode(lines)))))
say(vim.fn.sha256(vim.fn.json_encode(vim.mpack.decode(vim.mpack.encode(lines)))))
local done = 0
for i = 1, 8 do
  vim.loop.new_work(function(n) local s = '' for j = 1, 2000 do s = s .. j * n end return #s end,
    function(n) done = done + n end):queue(i)
end
vim.wait(20000, function() return done >= 8 * 6893 and vim.loop.loop_alive() ~= nil end, 20)
vim.wait(200)
say('threads', done)
local said = {}
local job = vim.fn.jobstart({ 'seq', '30000' }, {
  stdout_buffered = true, on_stdout = function(_, data) said = data end })
vim.fn.jobwait({ job })
say('job', #said, vim.fn.sha256(table.concat(said)))
say(vim.fn.eval('join(map(range(2000), {i, v -> v * v}), ",")->sha256()'))
say(vim.fn.execute('for i in range(3) | new | put =range(1000) | split | endfor | echo winnr("$")'))
collectgarbage()
local file = assert(io.open('said.txt', 'w'))
file:write(table.concat(out, '\n'), '\n')
file:close()
vim.cmd('qall!')
CODE
AS=nvim under nvim -u NONE -i NONE -n --headless -c 'luafile program.lua' \
    -c 'cquit'
cat said.txt
sha256sum result.txt
