/* rope.c - see rope.h. */
#include "infer/rope.h"

#include <math.h>
#include <stddef.h>

static const double two_pi = 6.283185307179586476925;

static double scale_llama3(const struct model_config *c, double frequency)
{
    double wavelength = two_pi / frequency;
    double original = (double)c->rope_original_ctx;
    double low = (double)c->rope_low_freq_factor;
    double high = (double)c->rope_high_freq_factor;
    if (wavelength < original / high) {
        return frequency;
    }
    double slow = frequency / (double)c->rope_factor;
    if (wavelength > original / low || high <= low) {
        return slow;
    }
    double blend = (original / wavelength - low) / (high - low);
    return (1.0 - blend) * slow + blend * frequency;
}

double rope_frequency(const struct model_config *config, uint32_t pair)
{
    double exponent = 2.0 * (double)pair / (double)config->head_size;
    double frequency = pow((double)config->rope_theta, -exponent);
    switch (config->rope_scaling) {
    case ROPE_PLAIN:
        break;
    case ROPE_LINEAR:
        frequency /= (double)config->rope_factor;
        break;
    case ROPE_LLAMA3:
        frequency = scale_llama3(config, frequency);
        break;
    }
    return frequency;
}

void rope_fill(const struct model_config *config, uint32_t n_positions, float *cos_table,
               float *sin_table)
{
    uint32_t half = config->head_size / 2;
    for (uint32_t i = 0; i < half; i++) {
        double frequency = rope_frequency(config, i);
        for (uint32_t p = 0; p < n_positions; p++) {
            double angle = frequency * (double)p;
            cos_table[(size_t)p * half + i] = (float)cos(angle);
            sin_table[(size_t)p * half + i] = (float)sin(angle);
        }
    }
}
