#include "feed_forward/feed_forward.hpp"

namespace pyseq {

void feed_forward(const FeedForward& arguments) { PYSEQ_CALL(feed_forward, arguments) }

void feed_forward_backward(const FeedForwardBackward& arguments) {
  PYSEQ_CALL(feed_forward_backward, arguments)
}

}  // namespace pyseq
