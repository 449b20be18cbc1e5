/* tests/model/lender.h -- flat arrays outside of a model, lent to it unit by unit in memory of their
 * own that is not a number as soon as it is given back. */
#ifndef TESTS_MODEL_LENDER_H
#define TESTS_MODEL_LENDER_H
#include "model/model.h"
#include <map>
#include <vector>

class Lender
{
  public:
    /* args: of the model, its store aside; T: size of the tensor axis */
    Lender(const struct tv_model_args &args, int T);
    ~Lender();
    Lender(const Lender &) = delete;
    Lender &operator=(const Lender &) = delete;

    std::vector<float> params, grads; /* the flat arrays */
    struct tv_unit_store store;

  private:
    static tv_status_t acquire(void *context, int unit, int next, tv_unit_use_t use,
                               struct tv_unit_memory *memory_out);
    static tv_status_t release(void *context, int unit, tv_unit_use_t use);
    void find(int unit, int64_t *first, int64_t *end, const struct tv_local_param **tied) const;
    /* What is lent becomes the gradients; what a use may not touch stays. */
    void give_back(int unit, tv_unit_use_t use);

    struct tv_param_table table = {};
    struct tv_local_params locals = {};
    int current = -1;         /* the unit in use */
    std::map<int, int> given; /* TV_GIVEN_* by unit; the tied weight's under -1 */
    std::vector<float> lent_params, lent_grads, lent_tied_params, lent_tied_grads;
};
#endif
