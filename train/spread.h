/* train/spread.h -- what is said about numbers that were measured several times. */
#ifndef TV_TRAIN_SPREAD_H
#define TV_TRAIN_SPREAD_H
#include "base/status.h"
#include <jansson.h>

TV_BEGIN_C
struct tv_spread {
    double low, median, high;
};
/* Both sort the values. num >= 1. */
double tv_median(double *values, int num);
struct tv_spread tv_spread_of(double *values, int num);
/* {"median", "low", "high"}; NULL without memory. The caller owns it. */
json_t *tv_spread_json(struct tv_spread spread);
TV_END_C
#endif
