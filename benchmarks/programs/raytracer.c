/* Spheres, one light, shadows and reflections in single precision: scalar SSE with branches, calls and structures. */
#include <math.h>
#include <string.h>
#include "bench.h"

typedef struct {
  float x, y, z;
} vec;
struct sphere {
  vec center;
  float radius, reflect;
  vec color;
};
#define SPHERES 9
#define SIZE 320
static struct sphere spheres[SPHERES];

static vec add(vec a, vec b) { return (vec){a.x + b.x, a.y + b.y, a.z + b.z}; }
static vec sub(vec a, vec b) { return (vec){a.x - b.x, a.y - b.y, a.z - b.z}; }
static vec scale(vec a, float k) { return (vec){a.x * k, a.y * k, a.z * k}; }
static float dot(vec a, vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
static vec unit(vec a) { return scale(a, 1.0f / sqrtf(dot(a, a))); }

static void bench_setup(void) {
  for (int i = 0; i < SPHERES; i++)
    spheres[i] = (struct sphere){{(float)(i % 3) * 2 - 2, (float)(i / 3) * 2 - 2, 6 + (float)(i * 5 % 4)}, 0.9f + (float)(i % 4) * 0.1f, (float)(i % 3) * 0.3f,
                                 {0.2f + (float)(i % 2) * 0.6f, 0.3f + (float)(i % 5) * 0.1f, 0.9f - (float)i * 0.08f}};
}

static int nearest(vec from, vec dir, float *distance) {
  int hit = -1;
  for (int i = 0; i < SPHERES; i++) {
    vec to = sub(spheres[i].center, from);
    float along = dot(to, dir);
    if (along < 0) continue;
    float d2 = dot(to, to) - along * along, r2 = spheres[i].radius * spheres[i].radius;
    if (d2 > r2) continue;
    float t = along - sqrtf(r2 - d2);
    if (t > 1e-3f && t < *distance) {
      *distance = t;
      hit = i;
    }
  }
  return hit;
}

static vec trace(vec from, vec dir, vec light, int depth) {
  float t = 1e9f;
  int i = nearest(from, dir, &t);
  if (i < 0) return (vec){0.1f, 0.1f, 0.2f + 0.3f * fabsf(dir.y)};
  vec point = add(from, scale(dir, t)), normal = unit(sub(point, spheres[i].center)), to_light = unit(sub(light, point));
  float far = 1e9f, bright = 0.1f, facing = dot(normal, to_light);
  if (facing > 0 && nearest(point, to_light, &far) < 0) bright += 0.8f * facing;
  vec color = scale(spheres[i].color, bright);
  if (depth > 0 && spheres[i].reflect > 0)
    color = add(color, scale(trace(point, sub(dir, scale(normal, 2 * dot(dir, normal))), light, depth - 1), spheres[i].reflect));
  return color;
}

static uint64_t bench_round(unsigned index) {
  uint64_t sum = 0;
  vec light = {5, -5 + (float)(index % 10), 0};
  for (int y = 0; y < SIZE; y++)
    for (int x = 0; x < SIZE; x++) {
      vec c = trace((vec){0, 0, 0}, unit((vec){(float)(x - SIZE / 2) / SIZE, (float)(y - SIZE / 2) / SIZE, 1}), light, 3);
      sum = sum * 31 + (uint64_t)(int)(c.x * 255) + (uint64_t)(int)(c.y * 255) * 3 + (uint64_t)(int)(c.z * 255) * 7;
    }
  return sum;
}
