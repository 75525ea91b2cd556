"""What service and agent say to each other, typed on both sides; pure, standard library only, from Python 3.9 on."""
