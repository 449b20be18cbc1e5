#include "model/lender.h"
#include "tensor/axis_ranks.h"
#include <algorithm>
#include <cmath>
#include <cstring>

Lender::Lender(const struct tv_model_args &args, int T) : store{this, acquire, release}
{
    EXPECT_EQ(TV_OK, tv_model_param_table(&args.config, &table));
    EXPECT_EQ(TV_OK, tv_model_place_params(&args, &table, T, &locals)) << tv_error_message();
    params.resize((size_t)locals.count);
    grads.resize((size_t)locals.count, NAN);
}

Lender::~Lender()
{
    tv_local_params_destroy(&locals);
    tv_param_table_destroy(&table);
}

void Lender::find(int unit, int64_t *first, int64_t *end, const struct tv_local_param **tied) const
{
    *first = *end = -1;
    *tied = nullptr;
    for (int i = 0; i < locals.num; i++) {
        const struct tv_local_param *local = &locals.params[i];
        if (local->param->tied_unit == unit)
            *tied = local;
        if (local->unit != unit)
            continue;
        *first = *first < 0 ? local->first : *first;
        *end = local->first + local->count;
    }
}

tv_status_t Lender::acquire(void *context, int unit, int next, tv_unit_use_t use,
                            struct tv_unit_memory *memory_out)
{
    auto *self = (Lender *)context;
    int64_t first, end;
    const struct tv_local_param *tied;
    self->find(unit, &first, &end, &tied);
    EXPECT_GE(first, 0) << "unit " << unit << " is not here";
    EXPECT_EQ(self->current, -1) << "two units at once";
    EXPECT_TRUE(next == -1 || next == (use == TV_USE_FORWARD ? unit + 1 : unit - 1));
    self->current = unit;
    const auto copy = [](const std::vector<float> &flat, int64_t from, int64_t to) {
        return std::vector<float>(flat.begin() + from, flat.begin() + to);
    };
    *memory_out = {};
    memory_out->given = self->given[unit] | self->given[-1];
    if (use != TV_USE_BACKWARD_WEIGHT) {
        self->lent_params = copy(self->params, first, end);
        memory_out->params = self->lent_params.data();
    }
    if (use != TV_USE_FORWARD) {
        self->lent_grads = copy(self->grads, first, end);
        memory_out->grads = self->lent_grads.data();
    }
    if (tied == nullptr)
        return TV_OK;
    self->lent_tied_params = copy(self->params, tied->first, tied->first + tied->count);
    self->lent_tied_grads = copy(self->grads, tied->first, tied->first + tied->count);
    memory_out->tied_params = use != TV_USE_BACKWARD_WEIGHT ? self->lent_tied_params.data() : NULL;
    memory_out->tied_grads = use != TV_USE_FORWARD ? self->lent_tied_grads.data() : NULL;
    return TV_OK;
}

void Lender::give_back(int unit, tv_unit_use_t use)
{
    int64_t first, end;
    const struct tv_local_param *tied;
    find(unit, &first, &end, &tied);
    for (int i = 0; i < locals.num; i++) {
        const struct tv_local_param *local = &locals.params[i];
        const bool is_tied = local == tied;
        if (local->unit != unit && !is_tied)
            continue;
        const float *lent =
            is_tied ? lent_tied_grads.data() : lent_grads.data() + local->first - first;
        float *own = grads.data() + local->first;
        const bool may_change = use != TV_USE_BACKWARD_INPUT || local->param->is_for_rows;
        EXPECT_TRUE(may_change || std::memcmp(lent, own, (size_t)local->count * sizeof(*own)) == 0)
            << local->param->name;
        std::copy(lent, lent + local->count, own);
    }
    if (use != TV_USE_BACKWARD_WEIGHT)
        given[unit] |= TV_GIVEN_NORMS;
    if (use != TV_USE_BACKWARD_INPUT)
        given[unit] |= TV_GIVEN_OTHERS;
    if (use != TV_USE_BACKWARD_INPUT && (tied != nullptr || unit == 0))
        given[-1] = TV_GIVEN_TIED;
}

tv_status_t Lender::release(void *context, int unit, tv_unit_use_t use)
{
    auto *self = (Lender *)context;
    EXPECT_EQ(self->current, unit);
    if (use != TV_USE_FORWARD)
        self->give_back(unit, use);
    for (auto *lent :
         {&self->lent_params, &self->lent_grads, &self->lent_tied_params, &self->lent_tied_grads})
        std::fill(lent->begin(), lent->end(), NAN);
    self->current = -1;
    return TV_OK;
}
