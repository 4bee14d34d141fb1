"""Tests of devcluster: pure, with a control plane (`integration`), and as root (`cluster`)."""
