/* train/spread.c -- medians. */
#include "train/spread.h"
#include "train/metrics.h"
#include <stdlib.h>

static int compare_reals(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double tv_median(double *values, int num)
{
    qsort(values, (size_t)num, sizeof(*values), compare_reals);
    return (values[(num - 1) / 2] + values[num / 2]) / 2;
}

struct tv_spread tv_spread_of(double *values, int num)
{
    const double median = tv_median(values, num); /* sorts */
    return (struct tv_spread){values[0], median, values[num - 1]};
}

json_t *tv_spread_json(struct tv_spread spread)
{
    return json_pack("{s:o, s:o, s:o}", "median", tv_metrics_number(spread.median), "low",
                     tv_metrics_number(spread.low), "high", tv_metrics_number(spread.high));
}
