/* Five bodies under gravity in double precision: scalar SSE2 with square roots and divisions. */
#include <math.h>
#include <string.h>
#include "bench.h"

struct body {
  double x, y, z, vx, vy, vz, mass;
};
#define BODIES 5
static struct body bodies[BODIES] = {
    {0, 0, 0, 0, 0, 0, 39.5},
    {4.8, -1.2, -0.1, 0.6, 2.8, -0.03, 0.038},
    {8.3, 4.1, -0.4, -1.0, 1.8, 0.008, 0.011},
    {12.9, -15.1, -0.2, 1.1, 0.9, -0.011, 0.0017},
    {15.4, -25.9, 0.2, 0.98, 0.6, -0.035, 0.002},
};

static void bench_setup(void) {}

static void advance(double dt) {
  for (int i = 0; i < BODIES; i++) {
    struct body *p = &bodies[i];
    for (int j = i + 1; j < BODIES; j++) {
      struct body *q = &bodies[j];
      double dx = p->x - q->x, dy = p->y - q->y, dz = p->z - q->z;
      double d2 = dx * dx + dy * dy + dz * dz;
      double mag = dt / (d2 * sqrt(d2));
      p->vx -= dx * q->mass * mag;
      p->vy -= dy * q->mass * mag;
      p->vz -= dz * q->mass * mag;
      q->vx += dx * p->mass * mag;
      q->vy += dy * p->mass * mag;
      q->vz += dz * p->mass * mag;
    }
  }
  for (int i = 0; i < BODIES; i++) {
    bodies[i].x += dt * bodies[i].vx;
    bodies[i].y += dt * bodies[i].vy;
    bodies[i].z += dt * bodies[i].vz;
  }
}

static uint64_t bench_round(unsigned index) {
  uint64_t bits;
  for (int i = 0; i < 150000; i++) advance(0.001);
  memcpy(&bits, &bodies[index % BODIES].x, 8);
  return bits;
}
