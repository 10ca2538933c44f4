#!/bin/sh
# Once per account and region, by an administrator, with the AWS CLI 2: bucket, the two roles with their
# instance profiles, and a security group whose members reach each other and nobody reaches them. The way
# in is an EC2 Instance Connect Endpoint in that group, open to whom IAM lets use it.
#   deploy/aws/setup.sh SUBNET_ID      prints what to put into cluster.yaml
set -eu
cd "$(dirname "$0")"
subnet=$1
region=$(aws configure get region || echo "$AWS_DEFAULT_REGION")

# us-east-1 is where a bucket is without a constraint, and refuses one.
if [ "$region" = us-east-1 ]; then set --; else set -- --create-bucket-configuration "LocationConstraint=$region"; fi
aws s3api create-bucket --bucket polyfit-results "$@" > /dev/null
aws s3api put-public-access-block --bucket polyfit-results --public-access-block-configuration \
  BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true
aws s3api put-bucket-policy --bucket polyfit-results --policy file://bucket-policy.json

for name in worker head; do
  aws iam create-role --role-name "polyfit-$name" --assume-role-policy-document file://trust-policy.json > /dev/null
  aws iam put-role-policy --role-name "polyfit-$name" --policy-name polyfit --policy-document "file://$name-policy.json"
  aws iam create-instance-profile --instance-profile-name "polyfit-$name" > /dev/null
  aws iam add-role-to-instance-profile --instance-profile-name "polyfit-$name" --role-name "polyfit-$name"
done
# Spot needs it once in an account.
aws iam create-service-linked-role --aws-service-name spot.amazonaws.com > /dev/null 2>&1 || true

vpc=$(aws ec2 describe-subnets --subnet-ids "$subnet" --query 'Subnets[0].VpcId' --output text)
group=$(aws ec2 create-security-group --group-name polyfit --description "Ray nodes of polyfit" --vpc-id "$vpc" --query GroupId --output text)
aws ec2 authorize-security-group-ingress --group-id "$group" --ip-permissions \
  "IpProtocol=-1,UserIdGroupPairs=[{GroupId=$group}]" > /dev/null
door=$(aws ec2 create-instance-connect-endpoint --subnet-id "$subnet" --security-group-ids "$group" \
  --query InstanceConnectEndpoint.InstanceConnectEndpointId --output text)
echo "subnet-0123456789abcdef0 -> $subnet"
echo "sg-0123456789abcdef0 -> $group"
echo "eice-0123456789abcdef0 -> $door"
