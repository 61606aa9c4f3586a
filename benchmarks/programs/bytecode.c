/* A stack machine dispatched by switch, running a program of loops, arithmetic, array access and calls. */
#include "bench.h"

enum op { PUSH, LOAD, STORE, ADD, SUB, MUL, MOD, XOR, LESS, EQUAL, JUMP, JUMP_IF_NOT, INDEX, SET_INDEX, CALL, RETURN, DUP, DROP, HALT };

/* locals: 0 = i, 1 = sum, 2 = x; array of 256. f(x) = (x * 31 + 7) mod 251 */
static const int16_t code[] = {
    /*  0 */ PUSH, 0, STORE, 0, PUSH, 1, STORE, 1,
    /*  8 */ LOAD, 0, PUSH, 20000, LESS, JUMP_IF_NOT, 70,
    /* 15 */ LOAD, 0, LOAD, 1, XOR, CALL, 72, STORE, 2,
    /* 24 */ LOAD, 2, PUSH, 3, MOD, PUSH, 0, EQUAL, JUMP_IF_NOT, 45,
    /* 34 */ LOAD, 1, LOAD, 2, ADD, STORE, 1, LOAD, 2, JUMP, 54,
    /* 45 */ LOAD, 1, LOAD, 0, SUB, STORE, 1, LOAD, 0,
    /* 54 */ PUSH, 256, MOD, DUP, INDEX, PUSH, 1, ADD, SET_INDEX,
    /* 63 */ LOAD, 0, PUSH, 1, ADD, JUMP, 82,
    /* 70 */ HALT, HALT,
    /* 72 */ PUSH, 31, MUL, PUSH, 7, ADD, PUSH, 251, MOD, RETURN,
    /* 82 */ STORE, 0, JUMP, 8,
};

static int32_t array[256];

static int64_t run(const int16_t *pc0) {
  int64_t stack[64], locals[8] = {0}, *sp = stack;
  const int16_t *pc = pc0, *calls[16], **call = calls;
  for (;;) {
    switch ((enum op)*pc++) {
      case PUSH: *sp++ = *pc++; break;
      case LOAD: *sp++ = locals[*pc++]; break;
      case STORE: locals[*pc++] = *--sp; break;
      case ADD: sp--; sp[-1] += sp[0]; break;
      case SUB: sp--; sp[-1] -= sp[0]; break;
      case MUL: sp--; sp[-1] *= sp[0]; break;
      case MOD: sp--; sp[-1] = (int64_t)((uint32_t)sp[-1] % (uint32_t)sp[0]); break;
      case XOR: sp--; sp[-1] ^= sp[0]; break;
      case LESS: sp--; sp[-1] = sp[-1] < sp[0]; break;
      case EQUAL: sp--; sp[-1] = sp[-1] == sp[0]; break;
      case JUMP: pc = pc0 + *pc; break;
      case JUMP_IF_NOT: pc = *--sp ? pc + 1 : pc0 + *pc; break;
      case INDEX: sp[-1] = array[sp[-1]]; break;
      case SET_INDEX: sp -= 2; array[sp[0]] = (int32_t)sp[1]; break;
      case CALL: *call++ = pc + 1; pc = pc0 + *pc; break;
      case RETURN: pc = *--call; break;
      case DUP: *sp = sp[-1]; sp++; break;
      case DROP: sp--; break;
      case HALT: return locals[1];
    }
  }
}

static void bench_setup(void) {}

static uint64_t bench_round(unsigned index) {
  uint64_t sum = index;
  for (int i = 0; i < 10; i++) sum = sum * 31 + (uint64_t)run(code);
  for (int i = 0; i < 256; i++) sum = sum * 31 + (uint32_t)array[i];
  return sum;
}
