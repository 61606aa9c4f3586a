/* Debian's Lua 5.4: a script of closures, tables, strings and a sort in each round; the interpreter is somebody else's code. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include "bench.h"

static lua_State *lua;
static const char script[] =
    "local function queens(n)\n"
    "  local rows, up, down, found = {}, {}, {}, 0\n"
    "  local function place(column)\n"
    "    if column > n then found = found + 1 return end\n"
    "    for row = 1, n do\n"
    "      if not (rows[row] or up[row + column] or down[row - column + n]) then\n"
    "        rows[row], up[row + column], down[row - column + n] = true, true, true\n"
    "        place(column + 1)\n"
    "        rows[row], up[row + column], down[row - column + n] = false, false, false\n"
    "      end\n"
    "    end\n"
    "  end\n"
    "  place(1)\n"
    "  return found\n"
    "end\n"
    "local function words(n)\n"
    "  local seen, parts = {}, {}\n"
    "  for i = 1, n do\n"
    "    local word = string.format('w%d_%s', i * 7919 % 1009, string.rep('x', i % 5))\n"
    "    seen[word] = (seen[word] or 0) + 1\n"
    "    parts[#parts + 1] = word:upper():sub(1, 4)\n"
    "  end\n"
    "  table.sort(parts)\n"
    "  local sum = 0\n"
    "  for word, n in pairs(seen) do sum = sum + #word * n end\n"
    "  return sum + #table.concat(parts, ',')\n"
    "end\n"
    "local function parse(text)\n"
    "  local sum = 0\n"
    "  for key, value in text:gmatch('(%a+)=(%d+)') do sum = sum + #key * tonumber(value) end\n"
    "  return sum\n"
    "end\n"
    "local text = string.rep('alpha=12, beta=345, gamma=6789; ', 60)\n"
    "function round(index) return queens(7) + words(3000) + parse(text) + index end\n";

static void bench_setup(void) {
  lua = luaL_newstate();
  luaL_openlibs(lua);
  if (luaL_dostring(lua, script)) {
    fprintf(stderr, "lua: %s\n", lua_tostring(lua, -1));
    exit(1);
  }
}

static uint64_t bench_round(unsigned index) {
  lua_getglobal(lua, "round");
  lua_pushinteger(lua, (lua_Integer)index);
  if (lua_pcall(lua, 1, 1, 0)) {
    fprintf(stderr, "lua: %s\n", lua_tostring(lua, -1));
    exit(1);
  }
  uint64_t result = (uint64_t)lua_tointeger(lua, -1);
  lua_pop(lua, 1);
  return result;
}
